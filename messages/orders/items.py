"""The items of a product: what it is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages.fields import objects, optional_word, uuid_of, whole, word

#: Items of one product.
MAX_ITEMS = 100
#: The `type` of an item that the price depends on.
_PRICE_FACTOR = "impactfactor"


class ItemKind(StrEnum):
    """What an item's code says it is; OTHER is a flavor, if its value is one's name or id."""

    CPU = "CPU"
    MEMORY = "memory"
    IMAGE = "image"
    SYSTEM_DISK = "sys_EBS"
    DATA_DISK = "data_EBS"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a product. `volume_type` is set for disks; `volume_id` where a data disk names
    its volume.
    """

    code: str
    kind: ItemKind
    value: str
    volume_type: str | None = None
    volume_id: str | None = None

    def number(self) -> int:
        """The value as a whole number, or `Refused` naming the item."""
        return whole(self.value, self.code)


def of_kind(items: Iterable[Item], kind: ItemKind) -> tuple[Item, ...]:
    """The items of one kind."""
    return tuple(item for item in items if item.kind is kind)


def read_items(product: Mapping[str, Any]) -> tuple[Item, ...]:
    """The items of a product, without those that mean "none" and those that are only factors of its
    price.
    """
    listed = objects(product.get("itemList"), "itemList", 0, MAX_ITEMS)
    made_of = [item for item in listed if not _is_price_factor(item)]
    return tuple(found for item in made_of if (found := _item(item)) is not None)


def _is_price_factor(item: Mapping[str, Any]) -> bool:
    """Whether an item says what the price depends on (`osType`: `Linux`), and nothing of what is
    ordered.
    """
    kind = item.get("type")
    return isinstance(kind, str) and kind.strip().lower() == _PRICE_FACTOR


def _item(item: Mapping[str, Any]) -> Item | None:
    """An item, or None where its value says that there is none of it."""
    code = word(item.get("code"), "code")
    value = item.get("value")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = optional_word(value, code)
    if text is None or text == "0":
        return None
    kind, volume_type = _kind(code)
    named = (
        optional_word(item.get("instanceId"), "instanceId") if kind is ItemKind.DATA_DISK else None
    )
    return Item(code, kind, text, volume_type, uuid_of(named, "instanceId") if named else None)


def _kind(code: str) -> tuple[ItemKind, str | None]:
    if code in (ItemKind.CPU, ItemKind.MEMORY):
        return ItemKind(code), None
    for kind in (ItemKind.SYSTEM_DISK, ItemKind.DATA_DISK):
        if code.startswith(f"{kind}_") and len(code) > len(kind) + 1:
            return kind, code[len(kind) + 1 :]
    return (ItemKind.IMAGE if code.startswith("image_") else ItemKind.OTHER), None
