"""What the items of a product mean in the cloud."""

from collections.abc import Sequence

from handlers.openstack.nova import Flavor
from messages.errors import wrong
from messages.orders import Item, ItemKind, of_kind

_MIB_IN_GIB = 1024


def ordered_flavor(items: Sequence[Item], flavors: Sequence[Flavor]) -> Flavor | None:
    """The flavor of the flavor item; None where there is none. `Refused` naming the item that
    cannot be understood.
    """
    by_word = {flavor.name: flavor for flavor in flavors} | {
        flavor.id: flavor for flavor in flavors
    }
    named = of_kind(items, ItemKind.OTHER)
    for item in named:
        if item.value not in by_word:
            raise wrong(item.code, "there is no such flavor")
    if len(named) > 1:
        raise wrong(named[1].code, "the product names two flavors")
    return by_word[named[0].value] if named else None


def check_size(items: Sequence[Item], flavor: Flavor) -> None:
    """`Refused` where CPU or memory say another size than the flavor has."""
    for item in of_kind(items, ItemKind.CPU):
        if item.number() != flavor.vcpus:
            raise wrong(item.code, "the flavor has another number of CPUs")
    for item in of_kind(items, ItemKind.MEMORY):
        if item.number() * _MIB_IN_GIB != flavor.ram:
            raise wrong(item.code, "the flavor has another size of memory")
