"""Exceptions that context managers can pass on."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import handlers
import messages
import workers
from messages.codes import Code
from messages.errors import Refused
from workers.pipeline.exits import Rejected

#: Modules that act when they are imported.
_NOT_IMPORTED = ("workers.__main__", "workers.demo", "workers.journal.migrations")


def exceptions() -> list[type[BaseException]]:
    for package in (messages, handlers, workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(_NOT_IMPORTED):
                importlib.import_module(module.name)
    found, pending = set[type[BaseException]](), [BaseException]
    while pending:
        for one in pending.pop().__subclasses__():
            if one not in found:
                found.add(one)
                pending.append(one)
    ours = ("messages.", "handlers.", "workers.")
    return [one for one in found if one.__module__.startswith(ours)]


def test_no_exception_is_a_frozen_dataclass() -> None:
    """Its traceback could not be set: a `TypeError` or `FrozenInstanceError` took its place."""
    found = exceptions()
    assert Rejected in found
    assert not [one for one in found if dataclasses.is_dataclass(one)]


def test_a_rejection_passes_through_a_context_manager() -> None:
    @contextmanager
    def scope() -> Iterator[None]:
        yield

    refused = Refused(Code.PARAMETER, "server_id")
    with pytest.raises(Rejected) as caught, scope():
        raise Rejected(refused, None, is_order=False, message=None)
    assert caught.value.refused is refused
