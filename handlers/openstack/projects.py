"""Keystone projects by id and by name; names may be given to other projects while the worker runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from handlers.effects.concurrency import SingleFlightCache, failed
from messages.errors import wrong

#: Seconds for which a list without a name proves that there is no such project: whoever floods us
#: with names that do not exist must not flood Keystone.
MISSING_LASTS = 5.0
#: Seconds for which a project's name is known. Then it is resolved anew before anything is done in
#: it.
FRESH = 30.0
#: Seconds after which the list is asked for anew, beside the work, and after which it tells nobody
#: anything any more. An id means the same project for good.
RENEW, OLD = 30.0, 300.0
#: Names that are known at once.
_MOST = 4096


@dataclass(frozen=True, slots=True)
class ProjectName:
    """A project that the service account has a role in."""

    id: str
    name: str
    domain_id: str


class TenantIs(StrEnum):
    """The way in which a tenant is written."""

    ID = "id"
    NAME = "name"


class ProjectNames:
    """The service account's projects by id and, of one domain, by name.

    The list tells which there are. Keystone may serve it from a cache of ten minutes, which a new
    name of a project does not touch: so `resolve` says which project a name means, by a log-in to
    it.
    """

    def __init__(
        self,
        list_projects: Callable[[], Awaitable[list[ProjectName]]],
        resolve: Callable[[str], Awaitable[ProjectName | None]],
        domain_id: str,
    ) -> None:
        self._list_projects = list_projects
        self._resolve = resolve
        self._domain_id = domain_id
        self._by_id: Mapping[str, ProjectName] = {}
        self._by_name: Mapping[str, ProjectName] = {}
        self._listed_at = self._tried_at = -OLD
        self._listing: asyncio.Task[None] | None = None
        self._resolved = SingleFlightCache(FRESH, _MOST)

    async def find(self, tenant: str, written: TenantIs | None = None) -> ProjectName | None:
        """Return the project with this id or name, None where there is none.

        `written` says which of the two it is; None: either. Raises `Refused` naming `tenant_id`
        where it is one project's id and another's name, `Transient` where Keystone cannot be asked.
        """
        age = time.monotonic() - self._listed_at
        known = tenant in self._by_id or tenant in self._by_name
        if age >= OLD or (age >= MISSING_LASTS and not known):
            await asyncio.shield(self._list())
        elif age >= RENEW and time.monotonic() - self._tried_at >= MISSING_LASTS:
            self._list()
        by_id = self._by_id.get(tenant) if written is not TenantIs.NAME else None
        by_name = None
        if written is not TenantIs.ID and tenant in self._by_name:
            by_name = await self._resolved.get(tenant, lambda: self._resolve(tenant))
        if by_id is not None and by_name is not None and by_id.id != by_name.id:
            raise wrong("tenant_id", "it is one project's id and another's name")
        return by_id or by_name

    def _list(self) -> "asyncio.Task[None]":
        """Begin one listing for all who wait, or join the one under way: they go on in the order in
        which they came.
        """
        if self._listing is None or self._listing.done():
            self._tried_at = time.monotonic()
            self._listing = asyncio.get_running_loop().create_task(self._learn())
            self._listing.add_done_callback(failed)
        return self._listing

    async def _learn(self) -> None:
        projects = await self._list_projects()
        self._by_id = {project.id: project for project in projects}
        self._by_name = {one.name: one for one in projects if one.domain_id == self._domain_id}
        self._listed_at = time.monotonic()
