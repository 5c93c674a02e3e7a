"""The region of a request (contract 4, 5): this worker's own, or none at all; another's is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

from messages.errors import wrong
from messages.fields import optional_word

#: `data.reason` of a request for another region.
OTHER_REGION = "region"


def check_region(message: Mapping[str, Any], own: str) -> None:
    """Raise `Refused` where `region` of a command, order or product is another than `own`, whatever
    the case.

    Missing, null and blank count as its own.
    """
    region = optional_word(message.get("region"), "region")
    if region is not None and region.casefold() != own.casefold():
        raise wrong(
            "region", f"it is meant for {region}, and this worker is {own}'s", reason=OTHER_REGION
        )


def check_order_region(message: Mapping[str, Any], own: str) -> None:
    """As `check_region`, of an order message, each of its products and each instance of a softDown."""
    check_region(message, own)
    for one in _parts(message):
        check_region(one, own)


def _parts(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in ("productList", "instanceList"):
        listed = message.get(name)
        if isinstance(listed, list):
            yield from (one for one in listed if isinstance(one, dict))
