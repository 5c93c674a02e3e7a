"""`new`: servers to be made, all or none."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema

from messages.commands import checked_tags
from messages.fields import (
    NULL_IS_EMPTY,
    ListOf,
    Model,
    OptionalResourceName,
    OptionalUuid,
    OptionalWord,
    Taken,
    Unread,
    WrongValue,
    counted,
    optional_line,
    stored_word,
)
from messages.orders.items import ItemKind, Items, of_kind
from messages.orders.order import MAX_PRODUCTS, OrderType, Product, stated, with_ordered
from messages.orders.term import TermOrder
from messages.secrets import MASK
from messages.texts import is_stored

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
#: Plain user data begin with one of these, and base64 never does.
_PLAIN = ("#", "Content-Type:", "MIME-Version:")
#: Characters of a token's payload that are read.
_MAX_PAYLOAD = 64 * 1024


class NewProduct(Product):
    """So many servers alike in each set."""

    count: Annotated[int, counted(1, MAX_SERVERS)] = Field(alias="instanceCount")
    items: Items = Field(alias="itemList")
    zone: OptionalWord = Field(None, alias="availableZone")

    @model_validator(mode="after")
    def _new_disks(self) -> "NewProduct":
        if any(item.volume_id is not None for item in self.items):
            raise WrongValue("the disks of a new server are new", "instanceId")
        return self


def _words(value: Any) -> tuple[str, ...]:
    """A list of words, or one text in which commas part them; repeats count once."""
    if value is None:
        return ()
    if isinstance(value, str):
        if not value.strip():
            return ()
        parts = value.split(",")
    elif isinstance(value, list) and len(value) <= MAX_GROUPS:
        parts = value
    else:
        raise WrongValue
    words = [optional_line(part) for part in parts]
    if len(words) > MAX_GROUPS or None in words:
        raise WrongValue
    return tuple(dict.fromkeys(one for one in words if one is not None))


class Customization(Model):
    """The customer's choices in the console."""

    name: OptionalResourceName = Field(
        None, alias="instanceName", description="several servers: name-1, name-2, …"
    )
    network_id: OptionalUuid = Field(
        None, alias="networkId", description="neither it nor a subnet: the tenant's only network"
    )
    subnet_id: OptionalUuid = Field(None, alias="subnetId")
    security_groups: Annotated[tuple[str, ...], Taken(_words, {})] = Field(
        (), alias="securityGroups", description="names or ids, as a list or comma separated"
    )
    key_name: OptionalResourceName = Field(None, alias="keyName")
    tags: Annotated[tuple[str, ...], Taken(lambda value: checked_tags(_words(value)), {})] = Field(
        (), description="as a list or comma separated"
    )
    zone: OptionalWord = Field(None, alias="availableZone")
    admin_pass: Unread = Field(None, alias="adminPass", description="kept nowhere")
    user_data: Unread = Field(
        None, alias="userData", description="plain or in base64; kept nowhere"
    )


def _password(value: Any) -> SecretStr | None:
    """A password is taken with its blanks."""
    if value is None or value in ("", MASK):
        return None
    if not isinstance(value, str) or len(value) > MAX_PASSWORD or not value.isprintable():
        raise WrongValue
    return SecretStr(value)


def _user_data(value: Any) -> SecretStr | None:
    """Plain text is told by its beginning; anything else must be base64."""
    if value is None or value in ("", MASK):
        return None
    if not isinstance(value, str):
        raise WrongValue
    if value.startswith(_PLAIN):
        encoded = base64.b64encode(value.encode()).decode()
    else:
        encoded = "".join(value.split())
        try:
            base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise WrongValue("it is neither base64 nor plain user data") from None
    if len(encoded) > MAX_USER_DATA:
        raise WrongValue(f"more than {MAX_USER_DATA} characters in base64")
    return SecretStr(encoded)


class Secrets(Model):
    """Secrets of an order, which are kept nowhere: `user_data` is in base64, as Nova takes it.

    `withheld` names a secret that was masked: the message came from where none are kept.
    """

    admin_pass: Annotated[SecretStr | None, Taken(_password, {})] = Field(None, alias="adminPass")
    user_data: Annotated[SecretStr | None, Taken(_user_data, {})] = Field(None, alias="userData")
    withheld: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _masked(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {}
        masked = [name for name in ("adminPass", "userData") if value.get(name) == MASK]
        return {"withheld": masked[0]} if masked else {**value, "withheld": None}

    @property
    def any(self) -> bool:
        """Tell whether there is a secret at all."""
        return self.admin_pass is not None or self.user_data is not None


def user_name_in(token: Any) -> str | None:
    """Return the `preferred_username` of a JWT, with or without `Bearer `; None where it says none
    that could be kept. The token is not verified here.
    """
    parts = token.removeprefix("Bearer ").split(".") if isinstance(token, str) else []
    if len(parts) != 3 or len(parts[1]) > _MAX_PAYLOAD:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return stored_word(payload.get("preferred_username"))
    except (binascii.Error, ValueError, RecursionError, AttributeError):
        return None


class OrderNew(TermOrder):
    """Make `setCount` times the servers of the products."""

    order_type: Annotated[OrderType, stated(OrderType.NEW)] = Field(alias="orderType")
    sets: Annotated[int, counted(1, MAX_SERVERS)] = Field(alias="setCount")
    products: Annotated[tuple[NewProduct, ...], ListOf(1, MAX_PRODUCTS, with_ordered)] = Field(
        alias="productList"
    )
    customization: Annotated[Customization, NULL_IS_EMPTY] = Field(
        Customization(), alias="consoleCustomization"
    )
    #: The user's name in the token; None where it says none.
    user_name: SkipJsonSchema[Annotated[str | None, Taken(user_name_in, {})]] = None
    secrets: SkipJsonSchema[Secrets] = Secrets()

    @model_validator(mode="after")
    def _possible(self) -> "OrderNew":
        if self.count > MAX_SERVERS:
            raise WrongValue(f"an order is of at most {MAX_SERVERS} servers", "instanceCount")
        if self.user_id is not None and not is_stored(self.user_id):
            raise WrongValue("the metadata of a server cannot hold it", "userId")
        # Names that are derived from the customer's.
        longest = self.server_name(self.count)
        disks = 1 + max(len(of_kind(one.items, ItemKind.DATA_DISK)) for one in self.products)
        if max(len(disk_name(longest, index)) for index in range(disks)) > MAX_NAME:
            detail = f"more than {MAX_NAME} characters with what is appended to it"
            raise WrongValue(detail, "instanceName")
        return self

    @property
    def count(self) -> int:
        """The number of servers in all."""
        return self.sets * sum(product.count for product in self.products)

    def server_name(self, number: int) -> str:
        """Return the name of the `number`th server (from 1); several are numbered."""
        base = self.customization.name or f"ecs-{self.name}"[:200]
        return base if self.count == 1 else f"{base}-{number}"


def disk_name(server_name: str, index: int) -> str:
    """Return the name of a server's disk: the system disk has the index 0."""
    return f"{server_name}-data{index}" if index else f"{server_name}-system"


def with_secrets(shown: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Give a masked `new` order the secrets of the message as it came."""
    return {
        **shown,
        "secrets": message.get("consoleCustomization"),
        "user_name": message.get("token"),
    }
