"""The Python client has a method for each operation, and an error for each code."""

import inspect

import pytest

from ecs_client import AsyncEcsClient, EcsClient, RequestFailed, operations
from ecs_client.errors import failure_of
from messages.codes import Code
from messages.commands import Operation

SUCCESSES = (Code.OK, Code.CREATED)


def test_each_operation_has_a_method() -> None:
    source = inspect.getsource(operations)
    assert [one.value for one in Operation if f"Operation.{one.name}" not in source] == []


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (operations.Servers, operations.AsyncServers),
        (operations.Images, operations.AsyncImages),
        (operations.Orders, operations.AsyncOrders),
        (EcsClient, AsyncEcsClient),
    ],
)
def test_what_threads_have_asyncio_has_too(kind: type, other: type) -> None:
    def public(one: type) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_")}

    assert public(kind) == public(other)


def test_each_code_of_failure_has_an_error_of_its_own() -> None:
    kinds = {
        type(failure_of(one.wire, "message", None, one.http, "key"))
        for one in Code
        if one not in SUCCESSES
    }
    assert len(kinds) == len(Code) - len(SUCCESSES)
    assert RequestFailed not in kinds


def test_a_code_that_is_not_known_is_a_failure_with_what_was_answered() -> None:
    error = failure_of("101.009999", "新", {"reason": "new", "more": 1}, 400, "key")
    assert type(error) is RequestFailed
    assert (error.code, error.reason, error.data) == (
        "101.009999",
        "new",
        {"reason": "new", "more": 1},
    )
    assert str(error) == "新 (101.009999, new)"
