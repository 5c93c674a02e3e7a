"""`new`: servers to be made, all or none."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from messages.errors import wrong
from messages.fields import (
    listing,
    mapping,
    optional_line,
    optional_resource_name,
    optional_word,
    uuid_of,
    whole,
)
from messages.orders.items import Item, ItemKind, of_kind, read_items
from messages.orders.order import Heading, Order
from messages.orders.products import read_products
from messages.orders.term import Term, read_term
from messages.secrets import MASK
from messages.servers import check_tags
from messages.texts import is_stored
from messages.tokens import user_name_in

#: Servers of one order, in all its sets and products.
MAX_SERVERS = 100
#: Characters of the name of a server, a volume or a port, with all that is appended to it.
MAX_NAME = 255
#: Characters of a password; Nova itself has no limit.
MAX_PASSWORD = 255
#: Characters of user data as Nova takes them, in base64.
MAX_USER_DATA = 65_535
#: Security groups and tags that one server may be given.
MAX_GROUPS = 100
#: What plain user data begin with, and base64 never does.
_PLAIN = ("#", "Content-Type:", "MIME-Version:")


@dataclass(frozen=True, slots=True)
class NewProduct:
    """So many servers alike in each set. `ordered` is the product as it came, without secrets."""

    count: int
    zone: str | None
    items: tuple[Item, ...]
    ordered: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must be kept nowhere: `user_data` is in base64, as Nova takes it.

    `withheld` names a secret that was masked: the message came from where none are kept.
    """

    admin_pass: SecretStr | None = None
    user_data: SecretStr | None = None
    withheld: str | None = None

    @property
    def any(self) -> bool:
        """Whether there is a secret at all."""
        return self.admin_pass is not None or self.user_data is not None


@dataclass(frozen=True, slots=True)
class Customization:
    """What the customer chose in the console."""

    name: str | None
    network_id: str | None
    subnet_id: str | None
    security_groups: tuple[str, ...]
    key_name: str | None
    tags: tuple[str, ...]
    zone: str | None


@dataclass(frozen=True, slots=True)
class OrderNew(Order):
    """Make `sets` times the servers of the products."""

    products: tuple[NewProduct, ...]
    sets: int
    term: Term
    customization: Customization
    #: What the token calls the user; None where it does not say.
    user_name: str | None
    secrets: Secrets

    @property
    def count(self) -> int:
        """Servers in all."""
        return self.sets * sum(product.count for product in self.products)

    def server_name(self, number: int) -> str:
        """The name of the `number`th server (from 1); several are numbered."""
        base = self.customization.name or f"ecs-{self.name}"[:200]
        return base if self.count == 1 else f"{base}-{number}"


def disk_name(server_name: str, index: int) -> str:
    """The name of a server's disk: the system disk has the index 0."""
    return f"{server_name}-data{index}" if index else f"{server_name}-system"


def parse_new(heading: Heading, secret: Mapping[str, Any]) -> OrderNew:
    """The order, or `Refused` naming the field that is wrong; `secret` is the message with its
    secrets.
    """
    sets = whole(heading.ordered.get("setCount"), "setCount")
    if not 1 <= sets <= MAX_SERVERS:
        raise wrong("setCount")
    order = OrderNew(
        heading=heading,
        products=tuple(_product(product) for product in read_products(heading.ordered)),
        sets=sets,
        term=read_term(heading.ordered),
        customization=_customization(
            mapping(heading.ordered.get("consoleCustomization"), "consoleCustomization")
        ),
        user_name=user_name_in(secret.get("token")),
        secrets=_secrets(mapping(secret.get("consoleCustomization"), "consoleCustomization")),
    )
    if order.count > MAX_SERVERS:
        raise wrong("instanceCount", f"an order is of at most {MAX_SERVERS} servers")
    if heading.user_id is not None and not is_stored(heading.user_id):
        raise wrong("userId", "the metadata of a server cannot hold it")
    _check_names(order)
    return order


def _check_names(order: OrderNew) -> None:
    """`Refused` where one of the names that are derived from the customer's would be too long."""
    longest = order.server_name(order.count)
    disks = 1 + max(len(of_kind(one.items, ItemKind.DATA_DISK)) for one in order.products)
    if max(len(disk_name(longest, index)) for index in range(disks)) > MAX_NAME:
        raise wrong("instanceName", f"more than {MAX_NAME} characters with what is appended to it")


def _product(product: Mapping[str, Any]) -> NewProduct:
    count = whole(product.get("instanceCount"), "instanceCount")
    if not 1 <= count <= MAX_SERVERS:
        raise wrong("instanceCount")
    items = read_items(product)
    if any(item.volume_id is not None for item in items):
        raise wrong("instanceId", "the disks of a new server are new")
    return NewProduct(
        count, optional_word(product.get("availableZone"), "availableZone"), items, product
    )


def _customization(chosen: Mapping[str, Any]) -> Customization:
    return Customization(
        name=optional_resource_name(chosen.get("instanceName"), "instanceName"),
        network_id=_optional_id(chosen, "networkId"),
        subnet_id=_optional_id(chosen, "subnetId"),
        security_groups=_words(chosen, "securityGroups"),
        key_name=optional_resource_name(chosen.get("keyName"), "keyName"),
        tags=check_tags(_words(chosen, "tags")),
        zone=optional_word(chosen.get("availableZone"), "availableZone"),
    )


def _optional_id(chosen: Mapping[str, Any], name: str) -> str | None:
    named = optional_word(chosen.get(name), name)
    return uuid_of(named, name) if named is not None else None


def _words(chosen: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of words, or one text in which commas part them; repeats count once."""
    value = chosen.get(name)
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else listing(value, name, 0, MAX_GROUPS)
    words = [optional_line(part, name) for part in parts]
    if isinstance(value, str) and not value.strip():
        return ()
    if len(words) > MAX_GROUPS or None in words:
        raise wrong(name)
    return tuple(dict.fromkeys(one for one in words if one is not None))


def _secrets(chosen: Mapping[str, Any]) -> Secrets:
    password, data = chosen.get("adminPass"), chosen.get("userData")
    masked = [
        name for name, value in (("adminPass", password), ("userData", data)) if value == MASK
    ]
    if masked:
        return Secrets(withheld=masked[0])
    return Secrets(_password(password), _user_data(data))


def _password(value: Any) -> SecretStr | None:
    """As it is, blanks and all."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_PASSWORD or not value.isprintable():
        raise wrong("adminPass")
    return SecretStr(value)


def _user_data(value: Any) -> SecretStr | None:
    """Plain text is told by how it begins; all else must be base64."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise wrong("userData")
    if value.startswith(_PLAIN):
        encoded = base64.b64encode(value.encode()).decode()
    else:
        encoded = "".join(value.split())
        try:
            base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise wrong("userData", "it is neither base64 nor plain user data") from None
    if len(encoded) > MAX_USER_DATA:
        raise wrong("userData", f"more than {MAX_USER_DATA} characters in base64")
    return SecretStr(encoded)
