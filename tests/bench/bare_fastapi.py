"""The least that a FastAPI application can do: a constant in the place of the gateway's answer.

python -m tests.bench.bare_fastapi PORT
"""

import sys

import uvicorn
from fastapi import FastAPI, Response

app = FastAPI()


@app.post("/v1/servers/{server_id}/action")
async def answer(server_id: str) -> Response:
    return Response(b'{"code":200,"message":"OK","data":null}', media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
