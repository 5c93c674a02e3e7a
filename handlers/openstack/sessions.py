"""The SDK's sessions: clouds.yaml, and who acts in which project.

Every function blocks, and raises `Transient` for whatever the SDK raises.
"""

import math
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import yaml

from handlers.effects.backoff import DEFAULT_TIMING, EffectTiming
from handlers.openstack.errors import ErrorResponse, as_transient, from_exception
from handlers.openstack.http_client import CallLost, CallTimes, Origin
from messages.errors import Transient
from messages.record import record

if TYPE_CHECKING:
    from openstack.config import OpenStackConfig
    from openstack.connection import Connection
    from requests import Response

T = TypeVar("T")


class Service(Enum):
    """The services that are called, each with the one microversion whose shapes the handlers know."""

    COMPUTE = ("compute", "2.67")
    VOLUME = ("block_storage", "3.60")
    IMAGE = ("image", None)
    NETWORK = ("network", None)

    def __init__(self, proxy: str, microversion: str | None) -> None:
        self.proxy = proxy
        self.microversion = microversion


@record
class Reply:
    """An answer below 400: the decoded body (None where there is none) and the request id."""

    status: int
    body: Any
    request_id: str | None


def reply_of(
    service: str,
    status: int,
    headers: Mapping[str, str],
    content: bytes | bytearray,
    *,
    mutating: bool,
) -> Reply:
    """Return a service's answer, or raise the error that says what to do. `service` is its proxy's
    name in the SDK; `mutating`: the call was to change something.
    """
    if status >= 400:
        text = content.decode("utf-8", "replace")
        raise ErrorResponse(service, status, headers, text).as_error(mutating=mutating)
    try:
        body = orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        # A service that answers nonsense may still have done what it was asked.
        raise CallLost("bad_answer", "the answer is no JSON").as_error(mutating=mutating) from None
    if status >= 300:
        raise CallLost("bad_answer", f"HTTP {status}").as_error(mutating=mutating)
    return Reply(status, body, headers.get("x-openstack-request-id"))


def ask(service: str, call: "Callable[[], Response]") -> Reply:
    """Make a call of the SDK that changes nothing, which blocks; return what `reply_of` does."""
    try:
        response = call()
    except Exception as error:
        raise from_exception(error) from None
    return reply_of(
        service, response.status_code, response.headers, response.content, mutating=False
    )


@record
class CloudSettings:
    """The clouds of clouds.yaml that are used, and the limits of using them; times are in seconds."""

    cloud: str | None
    admin_cloud: str | None = None
    project_domain: str = "default"
    threads: int = 32
    #: Projects with a warm connection; the one used longest ago is closed for a new one.
    max_projects: int = 256
    #: After which an unused connection is closed.
    idle: float = 900.0
    #: True where the cloud is only read: a call that would change something ends as `Foreseen`.
    read_only: bool = False
    #: `clouds.yaml` where it is named; None: where the SDK looks for it.
    config_file: str | None = None
    #: In which nothing comes of an answer, while connecting or between two bytes.
    call_timeout: float = 30.0
    #: From the request to the last byte of its answer.
    call_limit: float = 60.0
    #: Things in one page of a list; the default limit of Nova and Cinder.
    page_size: int = 1000
    #: For which an extension that a service is without is not asked for again.
    missing_ttl: float = 600.0
    #: How late the cloud may carry out what changes something.
    effects: EffectTiming = DEFAULT_TIMING


def region_name(settings: CloudSettings, cloud: str | None) -> str | None:
    """Return the `region_name` of a cloud's entry, by which its endpoints are chosen; None where it
    has none.

    Asks no cloud. Raises `Transient` where clouds.yaml cannot be read or has no such entry.
    """
    if settings.config_file is not None and cloud is not None:
        written = _clouds_of(settings.config_file).get(cloud)
        if isinstance(written, dict) and _is_plain(written):
            return str(written["region_name"])
    with as_transient("cloud_configuration"):
        found = (
            _configuration(settings.config_file).get_one(cloud=cloud, validate=False).region_name
        )
    return str(found) if found else None


def connect(settings: CloudSettings, cloud: str | None) -> "Connection":
    """Open a session with a cloud's entry in clouds.yaml; it logs in when it is first used."""
    with as_transient("cloud_configuration"):
        # Most of a second, and tens of megabytes: only once a cloud is asked.
        from openstack.connection import Connection  # noqa: PLC0415

        connection = Connection(config=_configuration(settings.config_file).get_one(cloud=cloud))
    return with_limits(connection, settings)


def connect_to(account: "Connection", project_id: str, settings: CloudSettings) -> "Connection":
    """Open a session of the same account in another project."""
    with as_transient("cloud_unavailable"):
        return with_limits(account.connect_as(project_id=project_id), settings)


def with_limits(connection: "Connection", settings: CloudSettings) -> "Connection":
    """Limit the time and the size of all answers in a session."""
    from handlers.openstack.http import Transport  # noqa: PLC0415 - comes with the SDK

    times = CallTimes(settings.call_timeout, settings.call_limit)
    connection.session.timeout = times.silence
    for scheme in ("http://", "https://"):
        connection.session.session.mount(scheme, Transport(settings.threads, times))
    return connection


def logged_in(
    connection: "Connection", settings: CloudSettings, function: "Callable[[Connection], T]"
) -> T:
    """Call a function of the session, which may log in.

    Where Keystone refuses the password, and clouds.yaml has another one by now, the session goes on
    with that one and the function is called again: a password is changed without a restart.
    """
    refused = connection.session.auth
    try:
        return function(connection)
    except Transient as error:
        if not is_unauthorized(error):
            raise
        # DANGER: a wrong password is not sent again and again, for Keystone may lock the account.
        # RACE: another thread may have read the new one meanwhile.
        if connection.session.auth is refused and not _read_password(connection, settings):
            raise
    return function(connection)


def is_unauthorized(error: Transient) -> bool:
    """Return True where Keystone refused a log-in."""
    return str(error).startswith("Unauthorized")


def _read_password(connection: "Connection", settings: CloudSettings) -> bool:
    """Take the password that clouds.yaml has now; return False where it is the same one."""
    config = connection.config
    with as_transient("cloud_configuration"):
        written = _configuration(settings.config_file).get_one(cloud=config.name)
        password, auth = written.config["auth"].get("password"), config.config["auth"]
        if password in (None, auth.get("password")):
            return False
        auth["password"] = password
        connection.session.auth = connection.connect_as(password=password).session.auth
    return True


def project_id_of(connection: "Connection") -> str:
    """Return the id of the session's project."""
    with as_transient("keystone"):
        return str(connection.session.get_project_id())


def user_id_of(connection: "Connection") -> str:
    """Return the id of the session's user."""
    with as_transient("keystone"):
        return str(connection.session.get_user_id())


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The way of a project's calls to a service: where to, the URL of its endpoint, and the head
    of a request, the token in it.
    """

    origin: Origin
    url: str
    #: The same as it stands in a request's first line.
    target: str
    head: bytes
    token: str | None
    #: Unix seconds at which keystoneauth would get another token.
    valid_until: float


def route(
    connection: "Connection", service: Service, rejected: str | None = None, location: str = "/"
) -> Route:
    """Return what the SDK would send to a service, and where to: it logs in and asks for versions
    as far as it must.

    `rejected`: the route whose token the service did not take; another one is got. `location`: the
    URL that the service sends to instead.
    """
    from keystoneauth1.identity.base import BaseIdentityPlugin  # noqa: PLC0415 - as the SDK

    from handlers.openstack.http import NOT_SENT, Unsent  # noqa: PLC0415 - comes with the SDK

    session = connection.session
    given = {} if service.microversion is None else {"microversion": service.microversion}
    with as_transient("keystone"):
        if rejected is not None and session.get_token() == rejected:
            session.invalidate()
        token, until = session.get_token(), math.inf
        if isinstance(session.auth, BaseIdentityPlugin):
            expires = session.auth.get_access(session).expires
            if expires is not None:
                until = expires.timestamp() - session.auth.MIN_TOKEN_LIFE_SECONDS
    with as_transient("cloud_unavailable"):
        # The first time it asks the service for its versions.
        unsent = getattr(connection, service.proxy).request(
            location,
            "GET",
            headers={NOT_SENT: ""},
            skip_cache=True,
            # The SDK's own limits wait by the wall clock: for hours, once that has jumped back.
            rate_semaphore=nullcontext(),
            **given,
        )
        assert isinstance(unsent, Unsent)
    target = unsent.target if location != "/" else unsent.target.rstrip("/")
    return Route(unsent.origin, unsent.url, target, unsent.head, token, until)


def log_in(connection: "Connection") -> None:
    """Get a token, unless there is one."""
    with as_transient("keystone"):
        connection.session.get_token()


def _configuration(file: str | None) -> "OpenStackConfig":
    """The SDK's reading of clouds.yaml and of its variables, `OS_…`."""
    from openstack.config import OpenStackConfig  # noqa: PLC0415

    # It takes an empty variable for a value: `OS_USERNAME=` alone would be a cloud of its own.
    for name, value in list(os.environ.items()):
        if name.startswith("OS_") and not value.strip():
            os.environ.pop(name, None)
    # A file that is named is the only one: if it is missing, another one's cloud must not be taken
    # for it.
    if file is not None:
        _clouds_of(file)
    return OpenStackConfig(config_files=None if file is None else [file], app_name="ecs-worker")


def _is_plain(entry: dict[str, Any]) -> bool:
    """Return whether an entry alone tells its region. The SDK need not be asked then, which takes a
    quarter of a second and 35 MB to import before the worker consumes.

    A profile, a list of regions, a text with placeholders and a file of secrets, which the SDK
    merges into the entry, are left to it.
    """
    name = entry.get("region_name")
    is_word = isinstance(name, str) and name != "" and not {",", "{"} & set(name)
    if not is_word or entry.keys() & {"cloud", "profile", "regions"}:
        return False
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    site = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    folders = ["", *(f"{one}/openstack" for one in (home, "~/.config", *site, "/etc"))]
    secrets = [Path(one, f"secure.{end}") for one in folders for end in ("yaml", "yml", "json")]
    named = {"OS_CLIENT_SECURE_FILE", "SNAP_REAL_HOME"} & os.environ.keys()
    return not named and not any(one.expanduser().exists() for one in secrets)


def _clouds_of(file: str) -> dict[str, Any]:
    """Return the entries of a clouds.yaml. `Transient` for one that the SDK would pass over without
    a word; nothing in it is shown.
    """
    try:
        found = yaml.safe_load(Path(file).read_bytes())
    except OSError as error:
        problem = f"{file} cannot be read: {error.strerror}"
    except (yaml.YAMLError, ValueError):
        problem = f"{file} is no YAML"
    else:
        if isinstance(found, dict) and isinstance(found.get("clouds"), dict):
            return dict(found["clouds"])
        problem = f"{file} has no clouds"
    raise Transient("cloud_configuration", detail=f"OS_CLIENT_CONFIG_FILE: {problem}")
