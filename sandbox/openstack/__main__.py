"""Serve a cloud on a port of 127.0.0.1: `python -m sandbox.openstack PORT [PACE [REGION]]`."""

import sys

import uvicorn

from sandbox.openstack.app import build_app
from sandbox.openstack.state import World


def main() -> None:
    """Serve until a signal."""
    pace = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    region = sys.argv[3] if len(sys.argv) > 3 else "RegionOne"
    uvicorn.run(
        build_app(World(pace, region)),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
