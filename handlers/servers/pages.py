"""Pages of a list of servers, and how many match in all.

Without a search Nova sorts and counts: the page in one detailed call, the ids of all in a plain
one. A search that Nova does not make as the contract means it is made here, among all servers or
among those that Nova has narrowed them down to.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.context import ProjectContext
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.nova import (
    Server,
    SortBy,
    get_server,
    list_names,
    list_part,
    list_servers,
)
from handlers.servers.view import inner_addresses
from messages.commands import UNUSUAL, Search, ServerList, Sort
from messages.fields import is_uuid
from messages.updates import is_unusual

#: Nova's columns for the fields by which it sorts as the contract does; a status it makes up of two
#: columns.
_COLUMNS = {"createTime": "created_at", "name": "display_name"}
#: The statuses that Nova lets anybody filter by. It may find more than those in the status, never
#: fewer.
_FILTERED = frozenset(
    {
        "active",
        "build",
        "error",
        "hard_reboot",
        "migrating",
        "password",
        "paused",
        "reboot",
        "rebuild",
        "rescue",
        "resize",
        "revert_resize",
        "shelved",
        "shelved_offloaded",
        "shutoff",
        "suspended",
        "verify_resize",
    }
)
#: A value that may be part of an id or of an address.
_ID_OR_ADDRESS = re.compile(r"[0-9a-f:.-]+")
_BAD_REQUEST = 400


@dataclass(frozen=True, slots=True)
class FoundServers:
    """The servers of one page, in order, and how many there are on all of them."""

    total: int
    servers: Sequence[Server]


async def find_page(task: ServerList, context: ProjectContext) -> FoundServers:
    """Find the page that is asked for."""
    found = await _sorted_by_nova(task, context) if task.search is None else None
    if found is None:
        servers = await _candidates(task.search, context)
        mine = [
            one
            for one in servers
            if one.project_id == context.project.id and _matches(one, task.search)
        ]
        found = FoundServers(len(mine), task.page.of(_sorted(mine, task.sort)))
    return found


# Without a search.


async def _sorted_by_nova(task: ServerList, context: ProjectContext) -> FoundServers | None:
    """Find the page by Nova; None where it sorts differently, or the list changed meanwhile."""
    column = _COLUMNS.get(task.sort.field)
    if column is None:
        return None
    sort = SortBy(column, task.sort.descending)
    if task.page.number == 1 and task.sort.field == "createTime":
        return await _first_page(task, sort, context)
    named = await context.retrying(lambda: list_names(context.project, sort))
    by_id = sorted(named, key=lambda one: one.id)
    by_name = sorted(by_id, key=lambda one: one.name, reverse=sort.descending)
    if task.sort.field == "name" and named != by_name:
        return None  # the database compares names in a way of its own
    begin = (task.page.number - 1) * task.page.size
    if begin >= len(named):
        return FoundServers(len(named), ())
    marker = named[begin - 1].id if begin else None
    try:
        part = await context.retrying(
            lambda: list_part(context.project, sort, task.page.size, marker)
        )
    except CloudRefusal as error:
        if error.status != _BAD_REQUEST:
            raise
        return None  # the server before the page is gone
    return FoundServers(len(named), _sorted(part, task.sort))


async def _first_page(task: ServerList, sort: SortBy, context: ProjectContext) -> FoundServers:
    """Most tenants have no more than one page: it counts itself."""
    part = await context.retrying(lambda: list_part(context.project, sort, task.page.size, None))
    total = len(part)
    if total == task.page.size:
        total = max(total, len(await context.retrying(lambda: list_names(context.project, sort))))
    return FoundServers(total, _sorted(part, task.sort))


# With one, or sorted here.


async def _candidates(search: Search | None, context: ProjectContext) -> list[Server]:
    """List all that may match: as few as Nova can be told to find."""
    if search is not None and search.field == "uuid":
        server_id = search.value.lower()
        if not is_uuid(server_id):
            return []
        try:
            return [await context.retrying(lambda: get_server(context.project, server_id))]
        except NotFound:
            return []
    filters = _narrowing(search) if search is not None else {}
    return await context.retrying(lambda: list_servers(context.project, **filters))


def _narrowing(search: Search) -> dict[str, str]:
    """Return filters of Nova's that leave out nothing that matches."""
    wanted = search.value.lower()
    if search.field == "status" and wanted in _FILTERED:
        return {"status": wanted.upper()}
    if search.field == "name" or (search.field is None and not _ID_OR_ADDRESS.fullmatch(wanted)):
        pattern = _rough_pattern(wanted)
        return {"name": pattern} if pattern else {}
    return {}


def _rough_pattern(part: str) -> str:
    """Return a regular expression that matches at least the names that hold this part, in whatever
    dialect.

    Only letters and digits of ASCII are sure to mean the same to every database, and only if both
    cases are named.
    """
    runs = re.findall("[a-z0-9]+", part)
    return ".*".join(
        "".join(f"[{one}{one.upper()}]" if one.isalpha() else one for one in run) for run in runs
    )


def _matches(server: Server, search: Search | None) -> bool:
    """Compare texts in whatever case; no character is special."""
    if search is None:
        return True
    wanted = search.value.lower()
    name = str(server.body.get("name") or "").lower()
    match search.field:
        case "name":
            return wanted in name
        case "ip":
            return _has_address(server, wanted)
        case "uuid":
            return wanted == server.id
        case "status":
            return (
                is_unusual(server.status) if wanted == UNUSUAL else wanted == server.status.lower()
            )
        case _:
            return wanted in name or wanted in server.id or _has_address(server, wanted)


def _has_address(server: Server, part: str) -> bool:
    return any(part in address.lower() for address in inner_addresses(server))


_KEYS: dict[str, Callable[[Server], Any]] = {
    "name": lambda one: str(one.body.get("name") or ""),
    "status": lambda one: one.status,
    "createTime": lambda one: str(one.body.get("created") or ""),
}


def _sorted(servers: Iterable[Server], sort: Sort) -> Sequence[Server]:
    """Sort; ties are in the order of the ids."""
    return sorted(
        sorted(servers, key=lambda one: one.id), key=_KEYS[sort.field], reverse=sort.descending
    )
