"""Keystone: the service account's projects by id and by name, and its catalogue.

Names may be given to other projects while the worker runs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from handlers.effects.concurrency import SingleFlightCache, failed
from handlers.openstack.errors import as_transient
from handlers.openstack.sessions import CloudSettings, Service, ask, with_limits
from messages.errors import wrong
from messages.record import record

if TYPE_CHECKING:
    from openstack.connection import Connection

#: The extensions of Neutron that are made use of.
_EXTENSIONS = frozenset({"router", "qos", "security-group"})
#: Projects whose names are cached.
_MOST = 4096


@record
class ProjectName:
    """A project that the service account has a role in."""

    id: str
    name: str
    domain_id: str


class TenantIs(StrEnum):
    """The way in which a tenant is written."""

    ID = "id"
    NAME = "name"


@record
class ProjectTimes:
    """Times for which Keystone's answers about projects count, in seconds."""

    #: A list without a name proves that there is no such project: a flood of names that do not
    #: exist must not flood Keystone.
    missing: float = 5.0
    #: A name means its project; then it is resolved anew before anything is done in it.
    name: float = 30.0
    #: The list is not asked for anew; then it is, beside the work.
    list: float = 30.0
    #: The list says anything at all. An id means the same project for good.
    list_most: float = 300.0


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
        times: ProjectTimes,
    ) -> None:
        self._list_projects = list_projects
        self._resolve = resolve
        self._domain_id = domain_id
        self._times = times
        self._by_id: Mapping[str, ProjectName] = {}
        self._by_name: Mapping[str, ProjectName] = {}
        self._listed_at = self._tried_at = -times.list_most
        self._listing: asyncio.Task[None] | None = None
        self._resolved = SingleFlightCache(times.name, _MOST)

    async def find(self, tenant: str, written: TenantIs | None = None) -> ProjectName | None:
        """Return the project with this id or name, None where there is none.

        `written` says which of the two it is; None: either. Raises `Refused` naming `tenant_id`
        where it is one project's id and another's name, `Transient` where Keystone cannot be asked.
        """
        age = time.monotonic() - self._listed_at
        known = tenant in self._by_id or tenant in self._by_name
        if age >= self._times.list_most or (age >= self._times.missing and not known):
            await asyncio.shield(self._list())
        elif age >= self._times.list and time.monotonic() - self._tried_at >= self._times.missing:
            self._list()
        by_id = self._by_id.get(tenant) if written is not TenantIs.NAME else None
        by_name = None
        if written is not TenantIs.ID and tenant in self._by_name:
            by_name = await self._resolved.get(tenant, lambda: self._resolve(tenant))
        if by_id is not None and by_name is not None and by_id.id != by_name.id:
            raise wrong("tenant_id", "it is one project's id and another's name")
        return by_id or by_name

    def _list(self) -> "asyncio.Task[None]":
        """Begin one listing for all who wait, or join the one under way."""
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


# The calls; each blocks. `Transient`.


def list_projects(account: "Connection") -> list[ProjectName]:
    """Return the projects that the service account has a role in."""
    from keystoneauth1.plugin import AUTH_INTERFACE  # noqa: PLC0415

    reply = ask(
        "identity",
        lambda: account.session.get(
            "/auth/projects", endpoint_filter={"interface": AUTH_INTERFACE}, raise_exc=False
        ),
    )
    return [
        ProjectName(project["id"], project["name"], project["domain_id"])
        for project in reply.body["projects"]
    ]


def find_project(account: "Connection", name: str, settings: CloudSettings) -> ProjectName | None:
    """Log in to the project with this name in the configured domain; None where there is none that
    the account has a role in.

    The list of projects cannot tell what a name means now: Keystone may have it in a cache.
    """
    from keystoneauth1.exceptions import Unauthorized  # noqa: PLC0415

    def log_in() -> Any:
        scope = {"project_name": name, "project_domain_id": settings.project_domain}
        return _access(with_limits(account.connect_as(**scope), settings))

    with as_transient("keystone"):
        try:
            access = log_in()
        except Unauthorized:
            # Keystone says the same where the account itself is no longer let in: that is no
            # answer.
            _access(with_limits(account.connect_as(), settings))
            # RACE: the account's password may have been changed, in Keystone or (by another
            # thread, from clouds.yaml) in our session, between the refusal and this log-in. Who is
            # let in and refused again has no role in such a project.
            try:
                access = log_in()
            except Unauthorized:
                return None
    return ProjectName(access.project_id, access.project_name, access.project_domain_id)


def _access(connection: "Connection") -> Any:
    plugin: Any = connection.session.auth
    try:
        return plugin.get_access(connection.session)
    finally:
        connection.close()


def unchosen_regions(account: "Connection") -> list[str]:
    """Return the regions of the catalogue where none is chosen and there are several: the SDK would
    call whichever is listed first.
    """
    if account.config.region_name:
        return []
    with as_transient("keystone"):
        catalog = account.service_catalog
    found = {
        end["region"] for one in catalog if one["type"] == "compute" for end in one["endpoints"]
    }
    return sorted(found) if len(found) > 1 else []


def missing_services(account: "Connection") -> list[str]:
    """Return the services that are called and that the catalogue does not list."""
    with as_transient("keystone"):
        return [
            service.name.lower()
            for service in Service
            if getattr(account, service.proxy).get_endpoint() is None
        ]


def old_services(account: "Connection") -> list[str]:
    """Say of each service that is too old which microversion it speaks, and which is needed."""
    found = []
    for service in Service:
        if service.microversion is None:
            continue
        with as_transient("keystone"):
            data = getattr(account, service.proxy).get_endpoint_data()
        newest = data.max_microversion if data is not None else None
        if newest is not None and newest < tuple(map(int, service.microversion.split("."))):
            spoken = ".".join(map(str, newest))
            name = service.name.lower()
            found.append(f"{name} speaks up to {spoken}, {service.microversion} is needed")
    return found


def missing_extensions(account: "Connection") -> list[str]:
    """Return the aliases of the extensions of Neutron that are used and missing."""
    with as_transient("cloud_unavailable"):
        proxy = account.network
    reply = ask(Service.NETWORK.proxy, lambda: proxy.request("/extensions", "GET"))
    return sorted(_EXTENSIONS - {one["alias"] for one in reply.body["extensions"]})
