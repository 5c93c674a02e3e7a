"""The cloud: the service account, the admin's cloud, and a warm connection per project.

The SDK authenticates and discovers in a session for each project. It blocks, so it runs in threads;
the calls themselves are made on the loop.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from handlers.effects.concurrency import SingleFlightCache, ThreadPool, failed
from handlers.openstack import keystone, sessions
from handlers.openstack.errors import CloudRefusal, NotFound, advice_of
from handlers.openstack.http_client import CallTimes, HttpClient
from handlers.openstack.keystone import ProjectName, ProjectNames, ProjectTimes, TenantIs
from handlers.openstack.project import OnCall, Project
from handlers.openstack.sessions import CloudSettings, Service
from messages.codes import Code
from messages.errors import Refused, Transient, wrong

if TYPE_CHECKING:
    from openstack.connection import Connection

T = TypeVar("T")

#: Keystone says no more of it than of a wrong password.
_ONE_PROJECT = (
    "the service account is an application credential, which belongs to one project and cannot log in to the tenants'; "
    "clouds.yaml must name a user and a password"
)
#: Why a request without a tenant is refused.
NEEDS_ADMIN = "only an admin cloud (ECS_ADMIN_CLOUD) could tell whose the instance is"
#: Calls that every service answers to anybody while it works, by its type in the catalogue.
_PROBES: Mapping[str, tuple[Service, str]] = {
    "compute": (Service.COMPUTE, "/limits"),
    "image": (Service.IMAGE, "/images?limit=1"),
}
#: The same of every service that is called.
_ANSWERED = (
    *_PROBES.values(),
    (Service.VOLUME, "/limits"),
    (Service.NETWORK, "/extensions"),
)


class Cloud:
    """The cloud as the service account sees it; every method may raise `Transient`."""

    def __init__(self, settings: CloudSettings, on_call: OnCall = lambda *_: None) -> None:
        self._settings = settings
        self._on_call = on_call
        #: True where an admin cloud is configured.
        self.has_admin = settings.admin_cloud is not None
        #: Times by which the cloud may carry out a change late.
        self.effect_timing = settings.effects
        self.threads = ThreadPool(settings.threads, "openstack")
        self._client = HttpClient(
            self.threads, CallTimes(settings.call_timeout, settings.call_limit)
        )
        #: The sessions of the service account and of the admin, each made once.
        self._sessions = SingleFlightCache(math.inf)
        #: Projects in the order of their last use.
        self._projects: OrderedDict[str, _Warm] = OrderedDict()
        self._names = ProjectNames(
            self.list_projects, self._resolve, settings.project_domain, ProjectTimes()
        )

    async def project(self, project_id: str) -> Project:
        """Return the session of one project, made on first use."""
        warm = self._projects.get(project_id)
        if warm is None:
            warm = _Warm(asyncio.ensure_future(self._connect_to(project_id)), time.monotonic())
            self._projects[project_id] = warm
            self._close_surplus()
        self._projects.move_to_end(project_id)
        warm.used_at = time.monotonic()
        try:
            return await asyncio.shield(warm.project)
        except Exception:
            # The next one tries afresh; whoever waits for this attempt gets its error.
            if self._projects.get(project_id) is warm:
                del self._projects[project_id]
            raise

    def warm(self, project_id: str) -> Project | None:
        """Return the session of a project if it is there already, so that nothing is awaited."""
        warm = self._projects.get(project_id)
        if warm is None or not warm.is_ready:
            return None
        self._projects.move_to_end(project_id)
        warm.used_at = time.monotonic()
        return warm.project.result()

    async def list_projects(self) -> list[ProjectName]:
        """Return the projects that the service account has a role in."""
        return await self._with_account(keystone.list_projects, ("identity", "GET"))

    async def find_project(self, tenant: str, written: TenantIs | None = None) -> ProjectName:
        """Return the project with this id or name (in the configured domain), or raise `Refused`
        naming `tenant_id`.

        `written` says which of the two it is; None: either, and what is one project's id and
        another's name is refused.
        """
        found = await self._names.find(tenant, written)
        if found is None:
            raise wrong("tenant_id", "the service account has no role in such a project")
        return found

    async def owner_of(self, server_id: str) -> str | None:
        """Return the id of the project that owns a server, or did until it was deleted.

        None where none is known, or there is no admin cloud to ask.
        """
        if not self.has_admin:
            return None
        admin = await self.admin()
        try:
            reply = await admin.get(Service.COMPUTE, f"/servers/{server_id}")
        except NotFound:
            # Nova remembers a deleted server until its tables are cleaned up.
            filters = {"all_tenants": "1", "deleted": "true", "uuid": server_id}
            reply = await admin.get(Service.COMPUTE, "/servers/detail", filters)
            servers = [one for one in reply.body["servers"] if one["id"] == server_id]
            return str(servers[0]["tenant_id"]) if servers else None
        return str(reply.body["server"]["tenant_id"])

    async def require_owner(self, server_id: str) -> str:
        """Return the id of the project that owns a server, or raise `Refused`: naming `tenant_id`
        where only an admin cloud could tell.
        """
        if not self.has_admin:
            raise wrong("tenant_id", NEEDS_ADMIN)
        owner = await self.owner_of(server_id)
        if owner is None:
            raise Refused(Code.SERVER_UNKNOWN, server_id)
        return owner

    async def admin(self) -> Project:
        """Return the session of the admin cloud; `RuntimeError` where none is configured."""
        if not self.has_admin:
            raise RuntimeError("no admin cloud is configured")
        return await self._sessions.get("admin", self._connect_admin)

    async def close(self) -> None:
        """Close every connection; calls under way are waited for."""
        await self._client.close()
        for warm in self._projects.values():
            warm.close()
        self._projects.clear()

    # Is it well?

    async def probe(self, service: str) -> None:
        """Ask a service for something small that no tenant's state can refuse."""
        projects = await self.list_projects()
        if not projects or service not in _PROBES:
            return
        project = await self.project(projects[0].id)
        await project.get(*_PROBES[service])

    async def account_trouble(self) -> str | None:
        """Tell in one line, without a URL, why the service account cannot act in the tenants'
        projects; None if it can.
        """
        try:
            projects = await self.list_projects()
            if not projects:
                return "the service account has a role in no project"
            account = await self._account()
            if "applicationcredential" in str(account.config.config.get("auth_type", "")).replace(
                "_", ""
            ):
                return _ONE_PROJECT
            if regions := await self._with_account(keystone.unchosen_regions):
                return f"the catalogue lists the regions {', '.join(regions)}, and clouds.yaml has no region_name"
            await (await self.project(projects[0].id)).log_in()
        except Transient as error:
            # Somebody has to mend something.
            if (
                error.reason == "cloud_configuration"
                or sessions.is_unauthorized(error)
                or error.advice
            ):
                return str(error)
            raise
        return None

    async def missing_services(self) -> list[str]:
        """Return the services that are called and that the catalogue does not list."""
        return await self._with_account(keystone.missing_services)

    async def silent_services(self) -> dict[str, Transient | CloudRefusal]:
        """Return the services that do not answer in the account's first project, by their names,
        each with its error. A service that refuses works.
        """
        projects = await self.list_projects()
        project = await self.project(projects[0].id)
        found: dict[str, Transient | CloudRefusal] = {}
        for service, path in _ANSWERED:
            try:
                await project.get(service, path)
            except Transient as error:
                found[service.name.lower()] = error
            except CloudRefusal as error:
                # What a proxy says for it, such as that its port speaks TLS.
                if advice_of(error):
                    found[service.name.lower()] = error
        return found

    async def old_services(self) -> list[str]:
        """Say of each service that is too old which microversion it speaks, and which is needed."""
        return await self._with_account(keystone.old_services)

    async def missing_extensions(self) -> list[str]:
        """Return the extensions of Neutron that are made use of and that the cloud is without."""
        return await self._with_account(keystone.missing_extensions, ("network", "GET"))

    # Sessions.

    async def _account(self) -> "Connection":
        settings = self._settings
        return await self._sessions.get(
            "account",
            lambda: self.threads.run(lambda: sessions.connect(settings, settings.cloud)),
        )

    async def _with_account(
        self, function: Callable[["Connection"], T], reported: tuple[str, str] | None = None
    ) -> T:
        """Call a function with the account's session; `reported`: the service and method that it
        calls.
        """
        account = await self._account()
        with self._reporting(*reported) if reported is not None else nullcontext():
            return await self.threads.run(
                lambda: sessions.logged_in(account, self._settings, function)
            )

    async def _resolve(self, name: str) -> ProjectName | None:
        return await self._with_account(
            lambda account: keystone.find_project(account, name, self._settings),
            ("identity", "POST"),
        )

    async def _connect_to(self, project_id: str) -> Project:
        connection = await self._with_account(
            lambda account: sessions.connect_to(account, project_id, self._settings)
        )
        return Project(project_id, connection, self._client, self._settings, self._on_call)

    async def _connect_admin(self) -> Project:
        settings = self._settings
        connection = await self.threads.run(
            lambda: sessions.connect(settings, settings.admin_cloud)
        )
        project_id = await self.threads.run(
            lambda: sessions.logged_in(connection, settings, sessions.project_id_of)
        )
        return Project(project_id, connection, self._client, settings, self._on_call)

    def _close_surplus(self) -> None:
        oldest = time.monotonic() - self._settings.idle
        while self._projects:
            project_id, warm = next(iter(self._projects.items()))
            if len(self._projects) <= self._settings.max_projects and warm.used_at > oldest:
                return
            del self._projects[project_id]
            warm.close()

    @contextmanager
    def _reporting(self, service: str, method: str) -> Iterator[None]:
        """Report the call that is made inside."""
        started, outcome = time.monotonic(), "cancelled"
        try:
            yield
            outcome = "200"
        except Transient as error:
            outcome = error.reason
            raise
        finally:
            self._on_call(service, method, outcome, time.monotonic() - started)


@dataclass(slots=True)
class _Warm:
    """A project's session, or one that is being made."""

    project: "asyncio.Future[Project]"
    used_at: float

    @property
    def is_ready(self) -> bool:
        return self.project.done() and not failed(self.project)

    def close(self) -> None:
        if self.is_ready:
            self.project.result().close()
