"""The items of a product: its flavor, image and disks."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from messages.fields import (
    WORD,
    ListOf,
    Model,
    Schema,
    Taken,
    Unread,
    WrongValue,
    keyword,
    optional_uuid,
    optional_word,
    read,
    whole,
    word,
)

#: Items of one product.
MAX_ITEMS = 100
#: The `type` of an item that the price depends on.
_PRICE_FACTOR = "impactFactor"


class ItemKind(StrEnum):
    """The kind of an item, by its code; OTHER is a flavor, if its value is one's name or id."""

    CPU = "CPU"
    MEMORY = "memory"
    IMAGE = "image"
    SYSTEM_DISK = "sys_EBS"
    DATA_DISK = "data_EBS"
    OTHER = "other"


def _code_or_factor(schema: Schema) -> None:
    """A price factor needs no code: it is passed over as a whole."""
    schema["required"] = []
    factor = {"type": keyword(_PRICE_FACTOR, any_case=True)}
    schema["anyOf"] = [
        {"required": ["code"], "properties": {"code": WORD}},
        {"required": ["type"], "properties": factor},
    ]


class OrderItem(Model):
    """One thing of a product: a flavor, an image, a disk."""

    model_config = ConfigDict(json_schema_extra=_code_or_factor)

    code: Annotated[str, Taken(word, {})] = Field(
        description="its kind: `CPU`, `memory`, `image_…`, `sys_EBS_<type>`, `data_EBS_<type>`;"
        " any other: a flavor"
    )
    #: Empty where the item means that there is none of it.
    value: str = Field("", description="a flavor, an image, gigabytes; `0`: none")
    name: Unread = None
    type: Unread = Field(
        None, description=f"`{_PRICE_FACTOR}`: only a factor of the price, passed over"
    )
    #: The volume that a data disk's item names.
    volume_id: str | None = Field(
        None, alias="instanceId", description="of a data disk: its volume"
    )

    @field_validator("value", mode="plain")
    @classmethod
    def _read_value(cls, value: Any, info: ValidationInfo) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        try:
            text = optional_word(value)
        except WrongValue:
            raise WrongValue(None, info.data.get("code")) from None
        return "" if text is None or text == "0" else text

    @field_validator("volume_id", mode="plain")
    @classmethod
    def _read_volume(cls, value: Any, info: ValidationInfo) -> str | None:
        kind, _ = _kind(info.data.get("code", ""))
        is_read = kind is ItemKind.DATA_DISK and info.data.get("value")
        return optional_uuid(value) if is_read else None

    @property
    def kind(self) -> ItemKind:
        """The item's kind, by its code."""
        return _kind(self.code)[0]

    @property
    def volume_type(self) -> str | None:
        """A disk's volume type; None of anything else."""
        return _kind(self.code)[1]

    def number(self) -> int:
        """Return the value as a whole number, or raise `Refused` naming the item."""
        return read(whole, self.value, self.code)


def _kind(code: str) -> tuple[ItemKind, str | None]:
    if code in (ItemKind.CPU, ItemKind.MEMORY):
        return ItemKind(code), None
    for kind in (ItemKind.SYSTEM_DISK, ItemKind.DATA_DISK):
        if code.startswith(f"{kind}_") and len(code) > len(kind) + 1:
            return kind, code[len(kind) + 1 :]
    return (ItemKind.IMAGE if code.startswith("image_") else ItemKind.OTHER), None


def of_kind(items: Iterable[OrderItem], kind: ItemKind) -> tuple[OrderItem, ...]:
    """Return the items of one kind."""
    return tuple(item for item in items if item.kind is kind)


def _without_price_factors(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what the price depends on (`osType`: `Linux`) and is not ordered."""

    def is_factor(kind: Any) -> bool:
        return isinstance(kind, str) and kind.strip().lower() == _PRICE_FACTOR.lower()

    return [item for item in listed if not is_factor(item.get("type"))]


#: The items of a product, without those that mean "none" and without factors of its price.
Items = Annotated[
    tuple[OrderItem, ...],
    AfterValidator(lambda items: tuple(item for item in items if item.value)),
    ListOf(0, MAX_ITEMS, _without_price_factors),
]
