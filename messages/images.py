"""The console's requests about images (contract 4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import (
    line,
    mapping,
    objects,
    optional_line,
    optional_word,
    resource_name,
    stored_line,
    uuid_of,
    word,
)
from messages.paging import Page, Sort, parse_page, parse_sort
from messages.texts import is_stored

SORT_FIELDS = ("name", "createTime", "status")
VISIBILITIES = ("public", "private", "shared", "community")
#: Images in one batch, operations in one patch.
MAX_BATCH = MAX_PATCH = 100
#: Characters of a description and of a property's value; Nova takes no more.
MAX_TEXT = 255
MAX_PROPERTIES = 100
#: Attributes that Glance has itself: no property may have such a name.
OWN_ATTRIBUTES = frozenset(
    {
        "id",
        "name",
        "status",
        "visibility",
        "owner",
        "size",
        "virtual_size",
        "checksum",
        "tags",
        "locations",
        "direct_url",
        "self",
        "file",
        "schema",
        "container_format",
        "disk_format",
        "created_at",
        "updated_at",
        "min_disk",
        "min_ram",
        "protected",
        "os_hidden",
        "os_hash_algo",
        "os_hash_value",
        "deleted",
        "deleted_at",
        "is_public",
        "stores",
    }
)
#: Nova's own rule for the name of an item.
_ITEM = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")
#: Nova takes no other names of properties.
_PROPERTY = re.compile(r"[a-z0-9_:. -]{1,255}")
#: Prefixes of properties that mean something to OpenStack, and are no customer's to set.
_RESERVED = ("img_signature", "os_glance", "owner_specified", "ecs_")


class PatchedField(StrEnum):
    """What a customer may change of an image."""

    NAME = "name"
    DESCRIPTION = "description"
    SYSTEM = "system"
    SYSTEM_TYPE = "systemType"


_PATHS = {f"/{field}": field for field in PatchedField}


@dataclass(frozen=True, slots=True)
class CreateImage:
    """An image of a server; `properties` hold its description, too."""

    server_id: str
    name: str
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageList:
    """A page of the images that the tenant may use; `search` is part of the name, or the id."""

    page: Page
    sort: Sort
    search: str | None
    visibility: str | None


@dataclass(frozen=True, slots=True)
class ImageListPrivate:
    """All private images with a tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class ImageShow:
    """One image."""

    image_id: str


@dataclass(frozen=True, slots=True)
class ImageDelete:
    """Delete one image."""

    image_id: str


@dataclass(frozen=True, slots=True)
class ImageBatchDelete:
    """Delete 1..100 different images, each by itself."""

    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageUpdate:
    """New values of an image's fields; None removes one."""

    image_id: str
    values: Mapping[PatchedField, str | None]


ImageTask = (
    CreateImage
    | ImageList
    | ImageListPrivate
    | ImageShow
    | ImageDelete
    | ImageBatchDelete
    | ImageUpdate
)


def parse_create(server_id: str, options: Mapping[str, Any]) -> CreateImage:
    """`createImage` of `server.action`."""
    name = resource_name(options.get("name"), "name")
    metadata = mapping(options.get("metadata"), "metadata")
    if len(metadata) > MAX_PROPERTIES:
        raise wrong("metadata", f"at most {MAX_PROPERTIES} items")
    properties = {_property(key): _text(value, "metadata") for key, value in metadata.items()}
    return CreateImage(
        server_id,
        name,
        properties | {"description": _text(options.get("description"), "description")},
    )


def parse_list(message: Mapping[str, Any]) -> ImageList:
    """`image.list`."""
    visibility = optional_word(message.get("visibility"), "visibility")
    if visibility is not None and visibility not in VISIBILITIES:
        raise wrong("visibility")
    search = optional_line(message.get("searchValue"), "searchValue")
    return ImageList(
        parse_page(message, "page"), parse_sort(message, SORT_FIELDS), search, visibility
    )


def parse_list_private(message: Mapping[str, Any]) -> ImageListPrivate:
    """`image.list_private`."""
    return ImageListPrivate(line(message.get("tag"), "tag"))


def parse_show(message: Mapping[str, Any]) -> ImageShow:
    """`image.show`."""
    return ImageShow(uuid_of(message.get("image_id"), "image_id"))


def parse_delete(message: Mapping[str, Any]) -> ImageDelete:
    """`image.delete`."""
    return ImageDelete(uuid_of(message.get("image_id"), "image_id"))


def parse_batch_delete(message: Mapping[str, Any]) -> ImageBatchDelete:
    """`image.batch_delete`."""
    images = objects(mapping(message.get("body"), "body").get("images"), "images", 1, MAX_BATCH)
    ids = tuple(uuid_of(image.get("id"), "id") for image in images)
    if len(set(ids)) != len(ids):
        raise wrong("images", "an image is named twice")
    return ImageBatchDelete(ids)


def parse_update(message: Mapping[str, Any]) -> ImageUpdate:
    """`image.update`: the last of several operations on one field counts, as in any patch."""
    operations = objects(message.get("body"), "body", 1, MAX_PATCH)
    values = dict(_operation(one) for one in operations)
    return ImageUpdate(uuid_of(message.get("image_id"), "image_id"), values)


def _operation(operation: Mapping[str, Any]) -> tuple[PatchedField, str | None]:
    path = word(operation.get("path"), "path")
    if path not in _PATHS:
        raise wrong("path", "this is not for a customer to change")
    field = _PATHS[path]
    op = word(operation.get("op"), "op")
    if op not in ("add", "replace", "remove") or (op == "remove" and field is PatchedField.NAME):
        raise wrong("op")
    if op == "remove":
        return field, None
    value = operation.get("value")
    return field, stored_line(value, "value") if field is PatchedField.NAME else _text(
        value, "value"
    )


def _property(name: str) -> str:
    trimmed = name.strip()
    if not _ITEM.fullmatch(trimmed):
        raise wrong("metadata", "a name has 1..255 letters, digits, blanks or -_:.")
    if trimmed.lower() in OWN_ATTRIBUTES or trimmed.lower().startswith(_RESERVED):
        raise wrong("metadata", f"{trimmed} is not for a customer to set")
    return trimmed


def _text(value: Any, name: str) -> str:
    """A text of up to 255 characters, line breaks and all; it may be empty. Glance holds nothing
    above U+FFFF.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT or not is_stored(value):
        raise wrong(name)
    return value
