"""OpenStack over HTTP: the only module that imports openstacksdk.

The SDK authenticates, discovers, and keeps a session for each project; its calls block, so they run
in a bounded pool of threads. What comes back is a `Reply`, or an error named for what to do about
it.
"""

import asyncio
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import yaml

from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import SingleFlightCache
from handlers.openstack.error_responses import MAX_DETAIL, ErrorResponse
from handlers.openstack.errors import CloudRefusal, Foreseen, NotFound
from handlers.openstack.projects import ProjectName, ProjectNames, TenantIs
from messages.errors import Ambiguous, Transient, wrong

if TYPE_CHECKING:
    from openstack.config import OpenStackConfig
    from openstack.connection import Connection

T = TypeVar("T")

#: A path of plain segments, perhaps with a query. A segment of dots would be taken away by the HTTP
#: library together with the one before it, and so name another resource.
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:[/?]|$))[\w.~:@%+-]+)+(?:\?[\w.~:@%+&=,-]*)?", re.ASCII)
#: Seconds after which a call that nobody waits for any more has had no answer.
_LONG = 5.0


class Service(Enum):
    """The services that are called, each with the one microversion whose shapes the handlers know."""

    COMPUTE = ("compute", "2.67")
    VOLUME = ("block_storage", "3.60")
    IMAGE = ("image", None)
    NETWORK = ("network", None)

    def __init__(self, proxy: str, microversion: str | None) -> None:
        self.proxy = proxy
        self.microversion = microversion


#: Keystone says no more of it than of a wrong password.
_ONE_PROJECT = (
    "the service account is an application credential, which belongs to one project and cannot log in to the tenants'; "
    "clouds.yaml must name a user and a password"
)
#: Things in one page of a list; the default limit of Nova and Cinder.
PAGE = 1000
#: Seconds for which an extension that a service is without is not asked for again.
MISSING = 600.0
#: The extensions of Neutron that are made use of.
_EXTENSIONS = frozenset({"router", "qos", "security-group"})
#: Neutron's words for a collection that it does not have; it has others for a single thing that is
#: not there.
_NO_SUCH_RESOURCE = "The resource could not be found."
#: Seconds for which what seldom changes is not asked for again.
_RECENT = 10.0
#: What a service that works answers anybody, by its type in the catalogue.
_PROBES: Mapping[str, tuple[Service, str]] = {
    "compute": (Service.COMPUTE, "/limits"),
    "image": (Service.IMAGE, "/images?limit=1"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer below 400: the decoded JSON body (None where there is none) and OpenStack's request
    id.
    """

    status: int
    body: Any
    request_id: str | None


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Which clouds of clouds.yaml are used, and how much of them at once."""

    cloud: str | None
    admin_cloud: str | None = None
    project_domain: str = "default"
    threads: int = 32
    #: Projects with a warm connection; the one used longest ago is closed for a new one.
    max_projects: int = 256
    #: Seconds after which an unused connection is closed.
    idle: float = 900.0
    #: Whether the cloud is only looked at: what would change something ends as `Foreseen`.
    read_only: bool = False
    #: `clouds.yaml` where it is named; None: where the SDK looks for it.
    config_file: str | None = None


#: Asked just before a call is sent that changes something: until when it may be sent, or an error
#: where it may not.
Fence = Callable[[], Awaitable[Deadline]]
#: Set around a call that must not be made twice (`effects`), for whatever functions it passes
#: through.
fence: ContextVar[Fence | None] = ContextVar("fence", default=None)

#: The calls of one request by HTTP method, counted for whoever sets it. Shared answers count for
#: whoever asked first.
counted: ContextVar["Counter[str] | None"] = ContextVar("counted", default=None)

#: Told of each call: service, method, HTTP status (or the name of the error), seconds.
OnCall = Callable[[str, str, str, float], None]


class Cloud:
    """The cloud as the service account sees it: a warm connection per project, threads shared by
    all.
    """

    def __init__(self, settings: CloudSettings, on_call: OnCall = lambda *_: None) -> None:
        self._settings = settings
        self._on_call = on_call
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="openstack")
        self._free = asyncio.Semaphore(settings.threads)
        self._account: asyncio.Task[Connection] | None = None
        self._admin: asyncio.Task[Project] | None = None
        self._projects: OrderedDict[str, _Warm] = OrderedDict()
        self._names = ProjectNames(self.list_projects, self._project_named, settings.project_domain)

    async def project(self, project_id: str) -> "Project":
        """A session scoped to one project, made on first use."""
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
            # The next one tries afresh; whoever waits on this attempt is told.
            if self._projects.get(project_id) is warm:
                del self._projects[project_id]
            raise

    def warm(self, project_id: str) -> "Project | None":
        """The session of a project that is there already: most are, and nothing is to be waited
        for.
        """
        warm = self._projects.get(project_id)
        if warm is None or not warm.is_ready:
            return None
        self._projects.move_to_end(project_id)
        warm.used_at = time.monotonic()
        return warm.project.result()

    async def list_projects(self) -> list[ProjectName]:
        """The projects that the service account has a role in."""
        account = await self._connect_account()
        with self._told("identity", "GET"):
            return await self.in_thread(lambda: _projects_of(account))

    async def _project_named(self, name: str) -> ProjectName | None:
        """Return the project that this name means now; None where the service account has no role
        in one.

        The list of projects cannot tell: Keystone may have it in a cache.
        """
        account, domain_id = await self._connect_account(), self._settings.project_domain
        with self._told("identity", "POST"):
            return await self.in_thread(lambda: _project_named(account, name, domain_id))

    async def probe(self, service: str) -> None:
        """Ask `identity`, `compute` or `image` for something small that no tenant's state can
        refuse.

        `Transient` where it does not answer.
        """
        projects = await self.list_projects()
        if not projects or service not in _PROBES:
            return
        project = await self.project(projects[0].id)
        await project.get(*_PROBES[service])

    async def account_trouble(self) -> str | None:
        """Tell in one line, without a URL, why the service account cannot act in the tenants'
        projects; None if it can.

        `Transient` where the cloud cannot be asked now.
        """
        try:
            projects = await self.list_projects()
            if not projects:
                return "the service account has a role in no project"
            account = await self._connect_account()
            if "applicationcredential" in str(account.config.config.get("auth_type", "")).replace(
                "_", ""
            ):
                return _ONE_PROJECT
            if regions := await self.in_thread(lambda: _unchosen_regions(account)):
                return f"the catalogue lists the regions {', '.join(regions)}, and clouds.yaml has no region_name"
            project = await self.project(projects[0].id)
            await self.in_thread(project.log_in)
        except Transient as error:
            if error.reason == "cloud_configuration" or str(error).startswith("Unauthorized"):
                return str(error)
            raise
        return None

    async def missing_services(self) -> list[str]:
        """The services that are called and that the catalogue does not list."""
        account = await self._connect_account()
        return await self.in_thread(lambda: _missing_services(account))

    async def old_services(self) -> list[str]:
        """Say of each service that is too old which microversion it speaks, and which is needed."""
        account = await self._connect_account()
        return await self.in_thread(lambda: _old_services(account))

    async def missing_extensions(self) -> list[str]:
        """The extensions of Neutron that are made use of and that the cloud is without, by their
        aliases.
        """
        account = await self._connect_account()
        with self._told("network", "GET"):
            return await self.in_thread(lambda: _missing_extensions(account))

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
        """The id of the project that owns a server, or did until it was deleted.

        None where none is known, or there is no admin cloud to ask.
        """
        if self._settings.admin_cloud is None:
            return None
        admin = await self.admin()
        try:
            reply = await admin.get(Service.COMPUTE, f"/servers/{server_id}")
        except NotFound:
            return await _former_owner(admin, server_id)
        owner: str = reply.body["server"]["tenant_id"]
        return owner

    async def admin(self) -> "Project":
        """The session of the admin cloud; an error of programming where none is configured."""
        if self._settings.admin_cloud is None:
            raise RuntimeError("no admin cloud is configured")
        if self._admin is None or (self._admin.done() and self._admin.exception()):
            self._admin = asyncio.ensure_future(self._connect_admin(self._settings.admin_cloud))
        return await asyncio.shield(self._admin)

    @property
    def has_admin(self) -> bool:
        """Whether an admin cloud is configured."""
        return self._settings.admin_cloud is not None

    async def close(self) -> None:
        """Close every connection; calls under way are waited for."""
        for warm in self._projects.values():
            warm.close()
        self._projects.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    async def in_thread(
        self, function: Callable[[], T], before: Callable[[], Awaitable[None]] | None = None
    ) -> T:
        """Run what blocks in one of the pool's threads; `before` is awaited when one is free, and
        so just before it.

        Who is cancelled waits no longer; the thread is free when the call has ended.
        """
        await self._free.acquire()
        try:
            if before is not None:
                await before()
            running = self._threads.submit(function)
        except BaseException:
            self._free.release()
            raise
        loop = asyncio.get_running_loop()
        running.add_done_callback(lambda _: _soon(loop, self._free.release))
        return await asyncio.wrap_future(running)

    @contextmanager
    def _told(self, service: str, method: str) -> Iterator[None]:
        """Report a call that is made inside."""
        started, outcome = time.monotonic(), "cancelled"
        try:
            yield
            outcome = "200"
        except Transient as error:
            outcome = error.reason
            raise
        finally:
            self._on_call(service, method, outcome, time.monotonic() - started)

    async def _connect_account(self) -> "Connection":
        if self._account is None or (self._account.done() and self._account.exception()):
            self._account = asyncio.ensure_future(
                self.in_thread(lambda: _connect(self._settings, self._settings.cloud))
            )
        return await asyncio.shield(self._account)

    async def _connect_to(self, project_id: str) -> "Project":
        account = await self._connect_account()
        connection = await self.in_thread(
            lambda: _scoped(account, project_id, self._settings.threads)
        )
        return Project(
            project_id, connection, self.in_thread, self._on_call, self._settings.read_only
        )

    async def _connect_admin(self, name: str) -> "Project":
        connection = await self.in_thread(lambda: _connect(self._settings, name))
        project_id = await self.in_thread(lambda: _project_of(connection))
        return Project(
            project_id, connection, self.in_thread, self._on_call, self._settings.read_only
        )

    def _close_surplus(self) -> None:
        oldest = time.monotonic() - self._settings.idle
        while self._projects:
            project_id, warm = next(iter(self._projects.items()))
            if len(self._projects) <= self._settings.max_projects and warm.used_at > oldest:
                return
            del self._projects[project_id]
            warm.close()


class Project:
    """One project's OpenStack. Paths are below the service's endpoint, bodies and replies JSON."""

    def __init__(
        self,
        project_id: str,
        connection: "Connection",
        in_thread: Callable[..., Awaitable[Reply]],
        on_call: OnCall,
        read_only: bool = False,
    ) -> None:
        self.id = project_id
        self._read_only = read_only
        #: What seldom changes and may be a few seconds old.
        self.recent = SingleFlightCache(_RECENT)
        #: Until when what an extension adds counts as missing, by path and the monotonic clock.
        self._missing: dict[str, Deadline] = {}
        self._on_call = on_call
        self._connection = connection
        self._in_thread = in_thread

    async def user_id(self) -> str:
        """The id of the user that calls: the service account, or the admin; `Transient` without a
        log-in.
        """
        return str(await self._in_thread(lambda: _user_of(self._connection)))

    async def get(
        self, service: Service, path: str, params: Mapping[str, Any] | None = None
    ) -> Reply:
        """Read; `Transient` where it may be asked again."""
        return await self._call(service, "GET", path, params=params)

    async def get_all(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> list[Any]:
        """All of a list, whose `name` is what the reply calls it; a call for each page. Glance
        pages in another way.
        """
        found: list[Any] = []
        params = {**filters, "limit": PAGE}
        while True:
            reply = await self.get(service, path, params)
            page = reply.body[name]
            found += page
            # A cloud may allow less than our limit in one page, and says so by a link. Neutron
            # links back, too.
            links = reply.body.get(f"{name}_links") or ()
            if not page or all(link["rel"] != "next" for link in links):
                return found
            params["marker"] = page[-1]["id"]

    async def get_all_if_offered(
        self, service: Service, path: str, name: str, filters: Mapping[str, Any]
    ) -> list[Any]:
        """Return all of a list that an extension adds; empty where the cloud is without it.

        That is remembered for `MISSING` seconds. A service that is down is not without it:
        `Transient` as in `get`. Nor is one whose way is lost: what a proxy answers is `NotFound`.
        """
        if not self._missing.get(path, Deadline(0.0)).passed:
            return []
        try:
            found = await self.get_all(service, path, name, filters)
        except NotFound as error:
            if error.detail != _NO_SUCH_RESOURCE:
                raise
            self._missing[path] = Deadline.after(MISSING)
            return []
        return found

    async def post(self, service: Service, path: str, body: Any) -> Reply:
        """Change; `Ambiguous` where it may have been carried out."""
        return await self._call(service, "POST", path, json=body)

    async def put(self, service: Service, path: str, body: Any) -> Reply:
        """As `post`."""
        return await self._call(service, "PUT", path, json=body)

    async def patch(self, service: Service, path: str, body: Any, content_type: str) -> Reply:
        """As `post`, with a patch of this media type."""
        return await self._call(
            service, "PATCH", path, json=body, headers={"Content-Type": content_type}
        )

    async def delete(self, service: Service, path: str) -> Reply:
        """As `post`."""
        return await self._call(service, "DELETE", path)

    async def _call(self, service: Service, method: str, path: str, **options: Any) -> Reply:
        if _PATH.fullmatch(path) is None:
            raise NotFound(404, "what is asked for cannot be part of a URL", None)
        if self._read_only and method != "GET":
            raise Foreseen(f"{method} {path}")
        started, outcome = time.monotonic(), "cancelled"
        guard, send_by = fence.get() if method != "GET" else None, Deadline(math.inf)

        async def may_be_sent() -> None:
            nonlocal send_by
            if guard is not None:
                send_by = await guard()

        try:
            reply = await self._in_thread(
                lambda: _request(self._connection, service, method, path, options, send_by),
                may_be_sent,
            )
            outcome = str(reply.status)
            return reply
        except CloudRefusal as error:
            outcome = str(error.status)
            raise
        except Transient as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            outcome = "no_answer" if time.monotonic() - started > _LONG else outcome
            raise
        finally:
            if (calls := counted.get()) is not None:
                calls[method] += 1
            self._on_call(service.proxy, method, outcome, time.monotonic() - started)

    def log_in(self) -> None:
        """Get a token for this project, unless there is one. Blocks. `Transient`."""
        _guarded_login(self._connection)

    def close(self) -> None:
        """Close the connection's sockets; a call under way ends first."""
        self._connection.close()


async def _former_owner(admin: Project, server_id: str) -> str | None:
    """Nova remembers what is deleted until its tables are cleaned up."""
    filters = {"all_tenants": "1", "deleted": "true", "uuid": server_id}
    reply = await admin.get(Service.COMPUTE, "/servers/detail", filters)
    return next(
        (str(one["tenant_id"]) for one in reply.body["servers"] if one["id"] == server_id), None
    )


def _soon(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # nobody is there any more to whom it matters
        loop.call_soon_threadsafe(act)


@dataclass(slots=True)
class _Warm:
    project: "asyncio.Future[Project]"
    used_at: float

    @property
    def is_ready(self) -> bool:
        """Whether the connection was made."""
        return (
            self.project.done()
            and not self.project.cancelled()
            and self.project.exception() is None
        )

    def close(self) -> None:
        if self.is_ready:
            self.project.result().close()


def region_name(settings: CloudSettings, cloud: str | None) -> str | None:
    """Return the `region_name` of a cloud's entry, by which its endpoints are chosen; None where it
    has none.

    Blocks, but asks no cloud. Raises `Transient` where clouds.yaml cannot be read or has no such
    entry.
    """
    try:
        found = (
            _configuration(settings.config_file).get_one(cloud=cloud, validate=False).region_name
        )
    except Transient:
        raise
    except Exception as error:
        raise Transient("cloud_configuration", detail=_described(error)) from None
    return str(found) if found else None


def _configuration(file: str | None) -> "OpenStackConfig":
    """The SDK's reading of clouds.yaml and of its variables, `OS_…`."""
    from openstack.config import OpenStackConfig  # noqa: PLC0415

    # It takes an empty variable for a value: `OS_USERNAME=` alone would be a cloud of its own.
    for name, value in list(os.environ.items()):
        if name.startswith("OS_") and not value.strip():
            os.environ.pop(name, None)
    # A file that is named is the only one: if it is missing, another one's cloud must not be taken
    # for it.
    files = None if file is None else [file]
    if file is not None:
        _check_file(file)
    return OpenStackConfig(config_files=files, app_name="ecs-worker")


def _check_file(file: str) -> None:
    """`Transient` for a clouds.yaml that the SDK would pass over without a word; nothing in it is
    shown.
    """
    try:
        found = yaml.safe_load(Path(file).read_bytes())
    except OSError as error:
        problem = f"{file} cannot be read: {error.strerror}"
    except (yaml.YAMLError, ValueError):
        problem = f"{file} is no YAML"
    else:
        if isinstance(found, dict) and isinstance(found.get("clouds"), dict):
            return
        problem = f"{file} has no clouds"
    raise Transient("cloud_configuration", detail=f"OS_CLIENT_CONFIG_FILE: {problem}")


def _connect(settings: CloudSettings, name: str | None) -> "Connection":
    try:
        from openstack.connection import Connection  # noqa: PLC0415 - most of a second, and tens of megabytes

        connection = Connection(config=_configuration(settings.config_file).get_one(cloud=name))
    except Transient:
        raise
    except Exception as error:
        raise Transient("cloud_configuration", detail=_described(error)) from None
    return _prepared(connection, settings.threads)


def _scoped(account: "Connection", project_id: str, threads: int) -> "Connection":
    try:
        connection = account.connect_as(project_id=project_id)
    except Exception as error:
        raise Transient("cloud_unavailable", detail=_described(error)) from None
    return _prepared(connection, threads)


def _prepared(connection: "Connection", threads: int) -> "Connection":
    from handlers.openstack import http  # noqa: PLC0415 - comes with the SDK

    connection.session.timeout = http.CALL_TIMEOUT
    for scheme in ("http://", "https://"):
        connection.session.session.mount(scheme, http.Transport(threads))
    return connection


def _projects_of(account: "Connection") -> list[ProjectName]:
    from keystoneauth1.plugin import AUTH_INTERFACE  # noqa: PLC0415

    reply = _guarded(
        "identity",
        lambda: account.session.get(
            "/auth/projects", endpoint_filter={"interface": AUTH_INTERFACE}, raise_exc=False
        ),
        mutating=False,
    )
    return [
        ProjectName(project["id"], project["name"], project["domain_id"])
        for project in reply.body["projects"]
    ]


def _project_named(account: "Connection", name: str, domain_id: str) -> ProjectName | None:
    """Log in to the project with this name in the domain; None where there is none that the account
    has a role in.
    """
    from keystoneauth1.exceptions import Unauthorized  # noqa: PLC0415

    try:
        try:
            access = _log_in(account.connect_as(project_name=name, project_domain_id=domain_id))
        except Unauthorized:
            # Keystone says the same where the account itself is no longer let in: that is no
            # answer.
            _log_in(account.connect_as())
            return None
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None
    return ProjectName(access.project_id, access.project_name, access.project_domain_id)


def _log_in(connection: "Connection") -> Any:
    plugin: Any = connection.session.auth
    try:
        return plugin.get_access(connection.session)
    finally:
        connection.close()


def _unchosen_regions(account: "Connection") -> list[str]:
    """The regions of the catalogue where none is chosen: the SDK would call whichever is listed
    first.
    """
    if account.config.region_name:
        return []
    try:
        catalog = account.service_catalog
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None
    found = {
        end["region"] for one in catalog if one["type"] == "compute" for end in one["endpoints"]
    }
    return sorted(found) if len(found) > 1 else []


def _missing_services(account: "Connection") -> list[str]:
    try:
        return [
            service.name.lower()
            for service in Service
            if getattr(account, service.proxy).get_endpoint() is None
        ]
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None


def _missing_extensions(account: "Connection") -> list[str]:
    proxy = _proxy(account, Service.NETWORK)
    name = Service.NETWORK.proxy
    reply = _guarded(name, lambda: proxy.request("/extensions", "GET"), mutating=False)
    offered = {one["alias"] for one in reply.body["extensions"]}
    return sorted(_EXTENSIONS - offered)


def _old_services(account: "Connection") -> list[str]:
    found = []
    for service in Service:
        if service.microversion is None:
            continue
        try:
            data = getattr(account, service.proxy).get_endpoint_data()
        except Exception as error:
            raise Transient("keystone", detail=_described(error)) from None
        newest = data.max_microversion if data is not None else None
        if newest is not None and newest < tuple(map(int, service.microversion.split("."))):
            spoken = ".".join(map(str, newest))
            name = service.name.lower()
            found.append(f"{name} speaks up to {spoken}, {service.microversion} is needed")
    return found


def _project_of(connection: "Connection") -> str:
    try:
        return str(connection.session.get_project_id())
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None


def _user_of(connection: "Connection") -> str:
    try:
        return str(connection.session.get_user_id())
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None


def _request(  # noqa: PLR0917 - all that a call is made of
    connection: "Connection",
    service: Service,
    method: str,
    path: str,
    options: Mapping[str, Any],
    send_by: Deadline,
) -> Reply:
    mutating = method != "GET"
    if mutating:
        # A failed log-in must not be taken for a call that may have been carried out.
        _guarded_login(connection)
    proxy = _proxy(connection, service)
    given = {key: value for key, value in options.items() if value is not None}
    if service.microversion is not None:
        given["microversion"] = service.microversion
    if not (
        connection.config.get_rate_limit(service.proxy)
        or connection.config.get_concurrency(service.proxy)
    ):
        # The SDK's own limit of nothing waits by the wall clock: for hours, once that has jumped
        # back.
        given["rate_semaphore"] = nullcontext()
    if send_by.passed:
        # The process stood still, or the log-in took long: whether the call is still ours is to be
        # asked again.
        raise Transient("not_sent", detail="the time in which it might be sent is over")
    return _guarded(service.proxy, lambda: proxy.request(path, method, **given), mutating)


def _proxy(connection: "Connection", service: Service) -> Any:
    """The SDK's way to the service; at first it asks the service for its versions."""
    try:
        return getattr(connection, service.proxy)
    except Exception as error:
        raise Transient("cloud_unavailable", detail=_described(error)) from None


def _guarded_login(connection: "Connection") -> None:
    try:
        connection.session.get_token()
    except Exception as error:
        raise Transient("keystone", detail=_described(error)) from None


def _guarded(service: str, send: Callable[[], Any], mutating: bool) -> Reply:
    try:
        response = send()
    except Exception as error:
        raise _from_exception(error, mutating) from None
    return _from_response(service, response, mutating)


def _from_exception(error: Exception, mutating: bool) -> Exception:
    """Whatever the SDK, keystoneauth, requests or urllib3 raise: was the request sent, and did it
    time out?
    """
    detail = _described(error)
    causes = _causes(error)
    if "OddAnswer" in causes:
        return (Ambiguous if mutating else Transient)("bad_answer", detail=detail)
    if not mutating or "NewConnectionError" in causes or "ConnectTimeoutError" in causes:
        return Transient("no_connection", detail=detail)
    if not causes & {
        "ConnectFailure",
        "ConnectTimeout",
        "ConnectionError",
        "ReadTimeout",
        "UnknownConnectionError",
    }:
        # Discovery, the catalogue, an endpoint that is missing: all before the request itself.
        return Transient("cloud_unavailable", detail=detail)
    return Ambiguous("no_answer", detail=detail, may_land_late="ReadTimeout" in causes)


def _causes(error: BaseException) -> set[str]:
    """The names of all exceptions that led to this one, through chaining and through urllib3's
    `reason`.
    """
    found: set[str] = set()
    pending: list[Any] = [error]
    while pending:
        one = pending.pop()
        if not isinstance(one, BaseException) or type(one).__name__ in found:
            continue
        found.update(kind.__name__ for kind in type(one).__mro__)
        pending += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _from_response(service: str, response: Any, mutating: bool) -> Reply:
    status = response.status_code
    if status < 400:
        return Reply(
            status, _decoded(response, mutating), response.headers.get("x-openstack-request-id")
        )
    # Not `response.text`: where no encoding is told, requests would guess one.
    text = response.content.decode("utf-8", "replace")
    raise ErrorResponse(service, status, response.headers, text).as_error(mutating=mutating)


def _decoded(response: Any, mutating: bool) -> Any:
    if not response.content:
        return None
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        # What answers nonsense may still have done what it was asked.
        raise (Ambiguous if mutating else Transient)(
            "bad_answer", detail="the answer is no JSON"
        ) from None


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_DETAIL]
