"""Which project an id or a name means, as Keystone says; names may be given to other projects while the worker runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

#: Seconds for which a list without a name proves that there is no such project: whoever floods us with names that do
#: not exist must not flood Keystone.
MISSING_LASTS = 5.0
#: Seconds after which the list is asked for anew, beside the work; and after which nobody is told by it any more.
FRESH, OLD = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class ProjectName:
    """A project that the service account has a role in."""

    id: str
    name: str
    domain_id: str


class ProjectNames:
    """The service account's projects by id and, of one domain, by name."""

    def __init__(self, list_projects: Callable[[], Awaitable[list[ProjectName]]], domain_id: str) -> None:
        self._list_projects = list_projects
        self._domain_id = domain_id
        self._known: Mapping[str, ProjectName] = {}
        self._listed_at = self._tried_at = -OLD
        self._listing: asyncio.Task[None] | None = None

    async def find(self, tenant: str) -> ProjectName | None:
        """The project with this id or name, None where there is none; `Transient` where Keystone cannot be asked."""
        now = time.monotonic()
        age = now - self._listed_at
        if age >= OLD or (age >= MISSING_LASTS and tenant not in self._known):
            await asyncio.shield(self._list())
        elif age >= FRESH and now - self._tried_at >= MISSING_LASTS:
            self._list()
        return self._known.get(tenant)

    def _list(self) -> "asyncio.Task[None]":
        """One question for all who wait: they go on in the order in which they came."""
        if self._listing is None or self._listing.done():
            self._tried_at = time.monotonic()
            self._listing = asyncio.get_running_loop().create_task(self._learn())
            self._listing.add_done_callback(_retrieve)
        return self._listing

    async def _learn(self) -> None:
        projects = await self._list_projects()
        by_name = {project.name: project for project in projects if project.domain_id == self._domain_id}
        # An id wins over a name: nobody may take another's place by naming a project so.
        self._known = by_name | {project.id: project for project in projects}
        self._listed_at = time.monotonic()


def _retrieve(listing: "asyncio.Task[None]") -> None:
    """Whoever waits for it is told of a failure; perhaps nobody does, and asyncio would complain."""
    if not listing.cancelled():
        listing.exception()
