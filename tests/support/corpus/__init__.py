"""Bad input, and what is only odd, as data; the tests of intake and of the running worker share it."""

from tests.support.corpus.bodies import bodies
from tests.support.corpus.case import (
    COMMANDS,
    ORDERS,
    PARAMETER,
    Case,
    Fate,
    command,
    order,
    show,
    soft_down,
)
from tests.support.corpus.commands import batches, numbers_and_ids, operations, texts, types
from tests.support.corpus.orders import orders
from tests.support.corpus.transport import elsewhere, transport

__all__ = [
    "COMMANDS",
    "ORDERS",
    "PARAMETER",
    "Case",
    "Fate",
    "cases",
    "command",
    "order",
    "show",
    "soft_down",
]


def cases() -> list[Case]:
    """All of them; their names are all different."""
    groups = (
        bodies,
        numbers_and_ids,
        types,
        operations,
        batches,
        texts,
        orders,
        transport,
        elsewhere,
    )
    return [case for group in groups for case in group()]
