"""Commands (contract 4): the console's requests.

Each model is the body of one operation's message. `task_of` returns what a command asks for: most
commands are their own task, `server.action` and `server.batch_action` are read into one.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from unicodedata import normalize

from pydantic import ConfigDict, Field, model_validator

from messages.fields import (
    NOT_NULL,
    NULL_IS_EMPTY,
    Line,
    ListOf,
    Model,
    OptionalLine,
    OptionalWord,
    ResourceName,
    Taken,
    Unread,
    Uuid,
    Word,
    WrongValue,
    is_uuid,
    keyword,
    mapping,
    needed,
    number,
    optional_word,
    stored_line,
    whole,
    word,
    word_or_none,
)
from messages.record import record
from messages.texts import is_line, is_stored

T = TypeVar("T")

#: Servers or images in one batch, operations in one patch.
MAX_BATCH = MAX_PATCH = 100
MAX_PAGE_SIZE = 100
#: The field by which a list is ordered where nothing is asked, newest first.
NEWEST = "createTime"
SORT_FIELDS = ("name", NEWEST, "status")
#: Fields by which a list of servers is searched.
SEARCH_FIELDS = ("name", "ip", "uuid", "status")
#: The value of a search by status that finds every server in ERROR or in an unknown status.
UNUSUAL = "unusual"
VISIBILITIES = ("public", "private", "shared", "community")
#: Nova's own limits of a server's tags and of a tag's characters.
MAX_TAGS, MAX_TAG = 50, 60
#: Characters of a description and of a property's value; Nova takes no more.
MAX_TEXT = 255
MAX_PROPERTIES = 100
_OWN_ATTRIBUTES = (
    "id name status visibility owner size virtual_size checksum tags locations direct_url self file"
    " schema container_format disk_format created_at updated_at min_disk min_ram protected os_hidden"
    " os_hash_algo os_hash_value deleted deleted_at is_public stores"
)
#: Attributes that Glance has itself: no property may have such a name.
OWN_ATTRIBUTES = frozenset(_OWN_ATTRIBUTES.split())
#: Nova's own rule for the name of an image's property.
_PROPERTY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
#: Prefixes of properties that mean something to OpenStack, and are no customer's to set.
_RESERVED = ("img_signature", "os_glance", "owner_specified", "ecs_")


class Operation(StrEnum):
    """The operations; the routing key of a command is one of these."""

    SERVER_ACTION = "server.action"
    SERVER_BATCH_ACTION = "server.batch_action"
    SERVER_LIST = "server.list"
    SERVER_SHOW = "server.show"
    SERVER_TAGS_LIST = "server.tags.list"
    SERVER_TAGS_UPDATE = "server.tags.update"
    IMAGE_LIST = "image.list"
    IMAGE_LIST_PRIVATE = "image.list_private"
    IMAGE_SHOW = "image.show"
    IMAGE_DELETE = "image.delete"
    IMAGE_BATCH_DELETE = "image.batch_delete"
    IMAGE_UPDATE = "image.update"
    ORDER_PLAN = "order.plan"
    ORDER_SHOW = "order.show"


class Power(StrEnum):
    """The power actions on a server, under the API's names."""

    START = "os-start"
    STOP = "os-stop"
    REBOOT = "reboot"


class Force(StrEnum):
    """The force of a power action: only a reboot makes a difference of it, Nova has one stop."""

    SOFT = "SOFT"
    HARD = "HARD"


class PatchedField(StrEnum):
    """The fields of an image that a customer may change."""

    NAME = "name"
    DESCRIPTION = "description"
    SYSTEM = "system"
    SYSTEM_TYPE = "systemType"


# Tasks that a command is read into.


@record
class PowerAction:
    """Start, stop or reboot one server."""

    server_id: str
    power: Power
    force: Force


@record
class PowerBatch:
    """Start, stop or reboot 1..100 different servers, all or none begun."""

    server_ids: tuple[str, ...]
    power: Power
    force: Force


@record
class OpenConsole:
    """Ask for the URL of a server's VNC console. The type is checked by Nova."""

    server_id: str
    console_type: str


@record
class CreateImage:
    """Create an image of a server; `properties` hold its description, too."""

    server_id: str
    name: str
    properties: Mapping[str, str]


# Parts of lists.


@record
class Page:
    """A part of a list: the number counts from 1."""

    number: int
    size: int

    def of(self, found: Sequence[T]) -> Sequence[T]:
        """Return that part; it is empty past the end."""
        begin = (self.number - 1) * self.size
        return found[begin : begin + self.size]


@record
class Sort:
    """The field by which a list is ordered, and the direction."""

    field: str
    descending: bool


@record
class Search:
    """A search; `field` None: in name, id and addresses."""

    field: str | None
    value: str


# The bodies of commands.


class RequestHeaders(Model):
    """Headers of a request that are read."""

    deadline: float | str | None = Field(
        None, alias="x-ecs-deadline", description="Unix seconds; past it nothing is begun"
    )
    traceparent: str | None = Field(
        None, description="W3C trace context, continued in what is published"
    )
    tracestate: str | None = None


class Command(Model):
    """Fields of every command."""

    naming_order: ClassVar[tuple[str, ...]] = ("tenant_id", "user_id")

    operation: str
    region: Unread = Field(None, description="the worker's own, where it is given")
    tenant_id: OptionalWord = Field(
        None, description="a project's id or name; where tokens are asked for, theirs decides"
    )
    user_id: OptionalWord = Field(None, description="the token's `sub`")
    token: Unread = Field(None, description="a signed token, where they are asked for")


_FORCES = {force.value: force for force in Force}


def _force(value: Any) -> Force:
    force = _FORCES.get(word(value).upper()) if value is not None else Force.SOFT
    if force is None:
        raise WrongValue
    return force


_ForceType = Annotated[Force, Taken(_force, keyword(*Force, any_case=True))]
#: Every action of the API; two of them in one body contradict each other.
_ACTIONS = frozenset({"os-start", "os-stop", "reboot", "os-getVNCConsole", "createImage"})
_BATCH_ACTIONS = frozenset({"os-start", "os-stop", "reboot"})
_ONE_ACTION = "the body must name just one action"


class StartOptions(Model):
    """Options of os-start: none."""


class PowerOptions(Model):
    """Options of os-stop and reboot."""

    type: _ForceType = Force.SOFT


class ConsoleOptions(Model):
    """Options of os-getVNCConsole."""

    type: Word = Field(description="the type of the console, which Nova checks: novnc")


def _properties(value: Any) -> dict[str, str]:
    metadata = mapping(value)
    if len(metadata) > MAX_PROPERTIES:
        raise WrongValue(f"at most {MAX_PROPERTIES} items")
    return {_property(name): _image_text(text) for name, text in metadata.items()}


def _property(name: str) -> str:
    trimmed = name.strip()
    if not _PROPERTY.fullmatch(trimmed):
        raise WrongValue("a name has 1..255 letters, digits, blanks or -_:.")
    if trimmed.lower() in OWN_ATTRIBUTES or trimmed.lower().startswith(_RESERVED):
        raise WrongValue(f"{trimmed} is not for a customer to set")
    return trimmed


def _image_text(value: Any) -> str:
    """A text of up to 255 characters, line breaks included; it may be empty. Glance holds nothing
    above U+FFFF.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT or not is_stored(value):
        raise WrongValue
    return value


_TEXT = {"type": "string", "maxLength": MAX_TEXT}
_METADATA = {
    "type": ["object", "null"],
    "additionalProperties": _TEXT,
    "maxProperties": MAX_PROPERTIES,
}


class CreateImageOptions(Model):
    """The image that is made of a server."""

    name: ResourceName
    metadata: Annotated[dict[str, str], Taken(_properties, _METADATA)] = Field(
        {}, description="properties of the image; those of Glance's own attributes are refused"
    )
    description: Annotated[str, Taken(_image_text, _TEXT)]


def _check_one_action(body: Any, allowed: frozenset[str]) -> Any:
    if body is None:
        raise WrongValue(_ONE_ACTION)
    if isinstance(body, dict):
        named = _ACTIONS.intersection(body)
        if len(named) != 1 or not named <= allowed:
            raise WrongValue(_ONE_ACTION)
    return body


def _just_one(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [name]} for name in schema["properties"]]
    for field in schema["properties"].values():
        field.pop("default", None)


class ServerActionBody(Model):
    """Exactly one action; null and an empty object are the same."""

    model_config = ConfigDict(json_schema_extra=_just_one)

    start: Annotated[StartOptions | None, NULL_IS_EMPTY] = Field(
        None, alias=Power.START.value, description="needs SHUTOFF"
    )
    stop: Annotated[PowerOptions | None, NULL_IS_EMPTY] = Field(
        None, alias=Power.STOP.value, description="needs ACTIVE, and billing information"
    )
    reboot: Annotated[PowerOptions | None, NULL_IS_EMPTY] = Field(
        None, description="SOFT where no type is given"
    )
    console: Annotated[ConsoleOptions | None, NULL_IS_EMPTY, NOT_NULL] = Field(
        None, alias="os-getVNCConsole", description="needs ACTIVE"
    )
    image: Annotated[CreateImageOptions | None, NULL_IS_EMPTY, NOT_NULL] = Field(
        None, alias="createImage"
    )

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return _check_one_action(value, _ACTIONS)


class ServerAction(Command):
    """Act on one server."""

    operation: Literal["server.action"]
    server_id: Uuid
    body: ServerActionBody

    @property
    def task(self) -> PowerAction | OpenConsole | CreateImage:
        """The action that the body names."""
        body = self.body
        if body.console is not None:
            return OpenConsole(self.server_id, body.console.type.lower())
        if body.image is not None:
            properties = body.image.metadata | {"description": body.image.description}
            return CreateImage(self.server_id, body.image.name, properties)
        return PowerAction(self.server_id, *_power_of(body))


def _power_of(body: "ServerActionBody | ServerBatchBody") -> tuple[Power, Force]:
    if body.stop is not None:
        return Power.STOP, body.stop.type
    if body.reboot is not None:
        return Power.REBOOT, body.reboot.type
    # An action that is missing here must not start a server.
    assert body.start is not None, "an action without a power"
    return Power.START, Force.SOFT


class Target(Model):
    """One of the servers or images of a batch."""

    id: Uuid


class BatchStartOptions(Model):
    """The servers of a batch."""

    servers: Annotated[tuple[Target, ...], ListOf(1, MAX_BATCH)] = Field(
        description="none of them twice"
    )

    @model_validator(mode="after")
    def _different(self) -> "BatchStartOptions":
        if len({one.id for one in self.servers}) != len(self.servers):
            raise WrongValue("a server is named twice", "servers")
        return self


class BatchPowerOptions(BatchStartOptions):
    """The servers of a batch, and the force."""

    type: _ForceType = Force.SOFT


class ServerBatchBody(Model):
    """Exactly one action."""

    model_config = ConfigDict(json_schema_extra=_just_one)

    start: Annotated[BatchStartOptions | None, NULL_IS_EMPTY, NOT_NULL] = Field(
        None, alias=Power.START.value
    )
    stop: Annotated[BatchPowerOptions | None, NULL_IS_EMPTY, NOT_NULL] = Field(
        None, alias=Power.STOP.value
    )
    reboot: Annotated[BatchPowerOptions | None, NULL_IS_EMPTY, NOT_NULL] = None

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return _check_one_action(value, _BATCH_ACTIONS)


class ServerBatchAction(Command):
    """Act on several servers: all are checked first, and if one fails, nothing is done."""

    operation: Literal["server.batch_action"]
    body: ServerBatchBody

    @property
    def task(self) -> PowerBatch:
        """The action that the body names."""
        body = self.body
        options = next(one for one in (body.start, body.stop, body.reboot) if one is not None)
        return PowerBatch(tuple(one.id for one in options.servers), *_power_of(body))


def _page_number(value: Any) -> int | None:
    number = whole(value) if value is not None else None
    if number == 0:
        raise WrongValue
    return number


def _page_size(value: Any) -> int:
    if value is None:
        return 10
    found = whole(value)
    if found < 1:
        raise WrongValue
    if found > MAX_PAGE_SIZE:
        raise WrongValue(f"a page has at most {MAX_PAGE_SIZE}")
    return found


def _one_of(values: Sequence[str]) -> Any:
    """A validator of one of these words; missing, null and blank are None."""

    def validate(value: Any) -> str | None:
        found = optional_word(value)
        if found is not None and found not in values:
            raise WrongValue
        return found

    return validate


def _descending(value: Any) -> bool:
    order = (optional_word(value) or "descend").lower()
    if order not in ("ascend", "descend"):
        raise WrongValue
    return order == "descend"


_LAST_PAGE = 10**12 - 1
_PageNumber = Annotated[
    int | None, Taken(_page_number, {"anyOf": [number(1, _LAST_PAGE), {"type": "null"}]})
]
_PageSize = Annotated[
    int, Taken(_page_size, {"anyOf": [number(1, MAX_PAGE_SIZE), {"type": "null"}]})
]
_Descending = Annotated[bool, Taken(_descending, keyword("ascend", "descend", any_case=True))]


class ListCommand(Command):
    """A page of a list, in an order. An empty number is wrong: nobody knows which page was meant."""

    page_size: _PageSize = Field(
        10, alias="pageSize", description=f"at most {MAX_PAGE_SIZE}, 10 where it is missing"
    )
    descending: _Descending = Field(
        True,
        alias="sortOrder",
        description="descend where it is missing",
        json_schema_extra={"default": "descend"},
    )


class ServerList(ListCommand):
    """List a page of the tenant's servers."""

    naming_order: ClassVar[tuple[str, ...]] = (
        *("searchField", "pageNo", "page", "pageSize", "sortField", "sortOrder", "searchValue"),
        *Command.naming_order,
    )

    operation: Literal["server.list"]
    search_field: Annotated[str | None, Taken(_one_of(SEARCH_FIELDS), keyword(*SEARCH_FIELDS))] = (
        Field(None, alias="searchField")
    )
    sort_field: Annotated[
        str | None,
        Taken(_one_of((*SORT_FIELDS, "uuid", "ip")), keyword(*SORT_FIELDS, "uuid", "ip")),
    ] = Field(
        None,
        alias="sortField",
        description="`uuid` and `ip`: the `searchField` where that is absent",
    )
    search_value: OptionalLine = Field(
        None, alias="searchValue", description="of status: a status, or `unusual`"
    )
    page_number: _PageNumber = Field(
        None, alias="pageNo", description="from 1; the first where it is missing"
    )
    page_again: _PageNumber = Field(None, alias="page", description="another name of `pageNo`")

    @model_validator(mode="after")
    def _consistent(self) -> "ServerList":
        if None not in (self.page_number, self.page_again) and self.page_number != self.page_again:
            raise WrongValue("it is not the page that pageNo says", "page")
        if self.sort_field in ("uuid", "ip") and self.search_field is not None:
            raise WrongValue(None, "sortField")
        return self

    @property
    def _is_search_key(self) -> bool:
        """Tell whether `sortField` says what to search, as the document's example table has it.

        `status` is both: only the value that no server has as its status tells.
        """
        if self.search_field is not None:
            return False
        unusual = (self.search_value or "").lower() == UNUSUAL
        return self.sort_field in ("uuid", "ip") or (self.sort_field == "status" and unusual)

    @property
    def page(self) -> Page:
        """The page that is asked for, the first where none is."""
        return Page(self.page_number or self.page_again or 1, self.page_size)

    @property
    def sort(self) -> Sort:
        """The order that is asked for, newest first where none is."""
        field = None if self._is_search_key else self.sort_field
        return Sort(field or NEWEST, self.descending)

    @property
    def search(self) -> Search | None:
        """The search that is asked for."""
        if self.search_value is None:
            return None
        field = self.sort_field if self._is_search_key else self.search_field
        return Search(field, self.search_value)


class ServerShow(Command):
    """Show one server."""

    operation: Literal["server.show"]
    server_id: Uuid


class ServerTagsList(Command):
    """List a server's tags."""

    operation: Literal["server.tags.list"]
    server_id: Uuid


def _tags(value: Any) -> tuple[str, ...]:
    """Comma separated; repeats count once, in the order in which they first came."""
    if not isinstance(value, str):
        raise WrongValue
    if not value.strip():
        return ()
    return checked_tags(tuple(dict.fromkeys(part.strip() for part in value.split(","))))


def checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags, or raise `WrongValue` where Nova would not take them."""
    if len(tags) > MAX_TAGS or not all(_is_tag(tag) for tag in tags):
        raise WrongValue(f"at most {MAX_TAGS} tags of 1..{MAX_TAG} characters without slash")
    if len({_stored_as(tag) for tag in tags}) < len(tags):
        raise WrongValue("two of them are the same to the database of the cloud")
    return tags


def _is_tag(tag: str) -> bool:
    return (
        1 <= len(tag) <= MAX_TAG and not {"/", ","} & set(tag) and is_line(tag) and is_stored(tag)
    )


def _stored_as(tag: str) -> str:
    """A tag as MySQL's usual collation compares it: without case and accents.

    Nova answers two that are the same with 500.
    """
    return "".join(normalize("NFD", one)[0] for one in tag.lower())


class ServerTagsUpdate(Command):
    """Replace all tags of a server."""

    operation: Literal["server.tags.update"]
    server_id: Uuid
    tags: Annotated[tuple[str, ...], Taken(_tags, {"type": "string"})] = Field(
        description="the whole new set, comma separated; empty: none"
    )


class ImageList(ListCommand):
    """List a page of the images that the tenant may use."""

    naming_order: ClassVar[tuple[str, ...]] = (
        *("visibility", "searchValue", "page", "pageSize", "sortField", "sortOrder"),
        *Command.naming_order,
    )

    operation: Literal["image.list"]
    visibility: Annotated[str | None, Taken(_one_of(VISIBILITIES), keyword(*VISIBILITIES))] = None
    search: OptionalLine = Field(
        None, alias="searchValue", description="part of the name, or the id"
    )
    page_number: _PageNumber = Field(
        None, alias="page", description="from 1; the first where it is missing"
    )
    sort_field: Annotated[str | None, Taken(_one_of(SORT_FIELDS), keyword(*SORT_FIELDS))] = Field(
        None, alias="sortField"
    )

    @property
    def page(self) -> Page:
        """The page that is asked for, the first where none is."""
        return Page(self.page_number or 1, self.page_size)

    @property
    def sort(self) -> Sort:
        """The order that is asked for, newest first where none is."""
        return Sort(self.sort_field or NEWEST, self.descending)


class ImageListPrivate(Command):
    """List all private images with a tag."""

    operation: Literal["image.list_private"]
    tag: Line


class ImageShow(Command):
    """Show one image."""

    operation: Literal["image.show"]
    image_id: Uuid


class ImageDelete(Command):
    """Delete one image."""

    operation: Literal["image.delete"]
    image_id: Uuid


class ImageBatchBody(Model):
    """The images of a batch."""

    images: Annotated[tuple[Target, ...], ListOf(1, MAX_BATCH)] = Field(
        description="none of them twice"
    )

    @model_validator(mode="after")
    def _different(self) -> "ImageBatchBody":
        if len({one.id for one in self.images}) != len(self.images):
            raise WrongValue("an image is named twice", "images")
        return self


class ImageBatchDelete(Command):
    """Delete several images, each by itself."""

    operation: Literal["image.batch_delete"]
    body: Annotated[ImageBatchBody, NULL_IS_EMPTY]

    @model_validator(mode="before")
    @classmethod
    def _missing_is_empty(cls, value: Any) -> Any:
        return {"body": None, **value}

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images, in the order in which they are named."""
        return tuple(one.id for one in self.body.images)


_PATHS = {f"/{field}": field for field in PatchedField}


def _path(value: Any) -> str:
    path = word(value)
    if path not in _PATHS:
        raise WrongValue("this is not for a customer to change")
    return path


_PATCHES = ("add", "replace", "remove")


class ImagePatch(Model):
    """One operation of a JSON patch."""

    path: Annotated[str, Taken(_path, keyword(*_PATHS))]
    op: Annotated[str, Taken(needed(_one_of(_PATCHES)), keyword(*_PATCHES))] = Field(
        description="remove is not for the name"
    )
    value: Any = Field(None, description="the new text; not of remove")

    @model_validator(mode="after")
    def _fits(self) -> "ImagePatch":
        if self.op == "remove" and self.field is PatchedField.NAME:
            raise WrongValue(None, "op")
        try:
            _ = self.new_value
        except WrongValue:
            raise WrongValue(None, "value") from None
        return self

    @property
    def field(self) -> PatchedField:
        """The field that is changed."""
        return _PATHS[self.path]

    @property
    def new_value(self) -> str | None:
        """Its new value; None removes it."""
        if self.op == "remove":
            return None
        return (stored_line if self.field is PatchedField.NAME else _image_text)(self.value)


class ImageUpdate(Command):
    """Change fields of an image by a JSON patch."""

    operation: Literal["image.update"]
    body: Annotated[tuple[ImagePatch, ...], ListOf(1, MAX_PATCH)] = Field(
        description="a JSON patch; a field's last change counts"
    )
    image_id: Uuid

    @property
    def values(self) -> dict[PatchedField, str | None]:
        """New values of the image's fields; None removes one."""
        return {one.field: one.new_value for one in self.body}


def _order(value: Any) -> Mapping[str, Any]:
    order = mapping(value)
    if not order:
        raise WrongValue("there is no order in it")
    return order


class OrderPlan(Command):
    """Ask what an order would do; nothing is done. The order's own form is part of the answer."""

    operation: Literal["order.plan"]
    #: As it came, secrets included.
    message: Annotated[Mapping[str, Any], Taken(_order, {"type": "object", "minProperties": 1})] = (
        Field(alias="order", description="an order of any kind", repr=False)
    )

    @property
    def tenant(self) -> str | None:
        """The tenant that the command says, or its order."""
        return self.tenant_id or word_or_none(self.message.get("tenant_id"))

    @property
    def instance_id(self) -> str | None:
        """The id of the first server that the order names; None where that is no UUID.

        The order's form is checked later: nothing else may become part of a URL before that.
        """
        listed = self.message.get("instanceList", self.message.get("productList"))
        first = listed[0] if isinstance(listed, list) and listed else None
        found = word_or_none(first.get("instanceId")) if isinstance(first, dict) else None
        return found.lower() if found is not None and is_uuid(found) else None


class OrderShow(Command):
    """Ask how far an order or a command is, and what it waits for."""

    operation: Literal["order.show"]
    key: Word = Field(
        description="an `orderId`, a `flowId`, or the `message_id` of a command that changes something"
    )


#: What is asked for: most commands are their own task.
Task = PowerAction | PowerBatch | OpenConsole | CreateImage | Command


def task_of(command: Command) -> Task:
    """Return what a command asks for."""
    if isinstance(command, (ServerAction, ServerBatchAction)):
        return command.task
    return command
