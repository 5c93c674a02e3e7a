"""The console's questions about servers, and their tags (contract 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

from messages.errors import wrong
from messages.fields import optional_line, optional_word, uuid_of
from messages.paging import Page, Sort, parse_page, parse_sort
from messages.texts import is_line, is_stored

#: What a list of servers can be searched and ordered by.
SEARCH_FIELDS = ("name", "ip", "uuid", "status")
SORT_FIELDS = ("name", "createTime", "status")
#: The value of a search by status that means everything that is not well.
UNUSUAL = "unusual"
#: Nova's own limits.
MAX_TAGS, MAX_TAG = 50, 60


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; `field` None: in name, id and addresses."""

    field: str | None
    value: str


@dataclass(frozen=True, slots=True)
class ServerList:
    """A page of the tenant's servers."""

    page: Page
    sort: Sort
    search: Search | None


@dataclass(frozen=True, slots=True)
class ServerShow:
    """One server."""

    server_id: str


@dataclass(frozen=True, slots=True)
class ServerTagsList:
    """A server's tags."""

    server_id: str


@dataclass(frozen=True, slots=True)
class ServerTagsUpdate:
    """A server's whole new set of tags."""

    server_id: str
    tags: tuple[str, ...]


def parse_list(message: Mapping[str, Any]) -> ServerList:
    """`server.list`, also as the document's example table calls it: with the key of the search in
    `sortField`.
    """
    if _is_search_key(message):
        message = {**message, "searchField": message["sortField"], "sortField": None}
    return ServerList(
        parse_page(message, "pageNo", "page"), parse_sort(message, SORT_FIELDS), _search(message)
    )


def parse_show(message: Mapping[str, Any]) -> ServerShow:
    """`server.show`."""
    return ServerShow(uuid_of(message.get("server_id"), "server_id"))


def parse_list_tags(message: Mapping[str, Any]) -> ServerTagsList:
    """`server.tags.list`."""
    return ServerTagsList(uuid_of(message.get("server_id"), "server_id"))


def parse_update_tags(message: Mapping[str, Any]) -> ServerTagsUpdate:
    """`server.tags.update`."""
    return ServerTagsUpdate(
        uuid_of(message.get("server_id"), "server_id"), _tags(message.get("tags"))
    )


def _is_search_key(message: Mapping[str, Any]) -> bool:
    """Whether `sortField` says what to search, and not what to sort by.

    `status` is both: only the value that no server has as its status tells.
    """
    if optional_word(message.get("searchField"), "searchField") is not None:
        return False
    field = optional_word(message.get("sortField"), "sortField")
    value = optional_line(message.get("searchValue"), "searchValue")
    return field in ("uuid", "ip") or (field == "status" and (value or "").lower() == UNUSUAL)


def _search(message: Mapping[str, Any]) -> Search | None:
    field = optional_word(message.get("searchField"), "searchField")
    if field is not None and field not in SEARCH_FIELDS:
        raise wrong("searchField")
    value = optional_line(message.get("searchValue"), "searchValue")
    return Search(field, value) if value is not None else None


def _tags(value: Any) -> tuple[str, ...]:
    """Comma separated; repeats count once, in the order in which they first came."""
    if not isinstance(value, str):
        raise wrong("tags")
    if not value.strip():
        return ()
    return check_tags(tuple(dict.fromkeys(part.strip() for part in value.split(","))))


def check_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The same tags, or `Refused` where Nova would not take them."""
    if len(tags) > MAX_TAGS or not all(_is_tag(tag) for tag in tags):
        raise wrong("tags", f"at most {MAX_TAGS} tags of 1..{MAX_TAG} characters without slash")
    if len({_stored_as(tag) for tag in tags}) < len(tags):
        raise wrong("tags", "two of them are the same to the database of the cloud")
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
