"""Records: values that nothing changes once they are made."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots that is frozen as far as mypy can tell.

    At run time it is not: the `__init__` of a frozen dataclass calls `object.__setattr__` for each
    field, which takes five times as long, and one message makes a dozen records of a hundred
    fields. mypy refuses whatever would change one.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
