"""A check of Schemathesis: an answer of 500 and above is one that the contract has."""

import schemathesis

#: An image could not be changed, or deleted.
FORESEEN = ("101.003005", "101.003006")


@schemathesis.check
def foreseen(
    _: schemathesis.CheckContext, response: schemathesis.Response, __: schemathesis.Case
) -> None:
    if response.status_code >= 500:
        code = response.json()["code"]
        assert (response.status_code, code in FORESEEN) == (500, True), response.text
