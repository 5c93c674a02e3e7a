"""The SDK's part: clouds.yaml, log-in, the catalogue, and REST calls in its sessions.

Every function blocks. Raises `Transient` for whatever the SDK raises, and what `errors` makes of an
answer. docs/decisions/0021-raw-rest.md tells why calls are raw.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from handlers.effects.backoff import DEFAULT_TIMING, Deadline, EffectTiming
from handlers.openstack.errors import ErrorResponse, as_transient, from_exception
from messages.errors import Ambiguous, Transient

if TYPE_CHECKING:
    from openstack.config import OpenStackConfig
    from openstack.connection import Connection


class Service(Enum):
    """The services that are called, each with the one microversion whose shapes the handlers know."""

    COMPUTE = ("compute", "2.67")
    VOLUME = ("block_storage", "3.60")
    IMAGE = ("image", None)
    NETWORK = ("network", None)

    def __init__(self, proxy: str, microversion: str | None) -> None:
        self.proxy = proxy
        self.microversion = microversion


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer below 400: the decoded body (None where there is none) and the request id."""

    status: int
    body: Any
    request_id: str | None


@dataclass(frozen=True, slots=True)
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
    with as_transient("cloud_configuration"):
        found = (
            _configuration(settings.config_file).get_one(cloud=cloud, validate=False).region_name
        )
    return str(found) if found else None


def connect(settings: CloudSettings, cloud: str | None) -> "Connection":
    """Open a session with a cloud's entry in clouds.yaml; it logs in when it is first used."""
    with as_transient("cloud_configuration"):
        from openstack.connection import Connection  # noqa: PLC0415 - most of a second, and tens of megabytes

        connection = Connection(config=_configuration(settings.config_file).get_one(cloud=cloud))
    return _with_limits(connection, settings)


def connect_to(account: "Connection", project_id: str, settings: CloudSettings) -> "Connection":
    """Open a session of the same account in another project."""
    with as_transient("cloud_unavailable"):
        connection = account.connect_as(project_id=project_id)
    return _with_limits(connection, settings)


def log_in(connection: "Connection") -> None:
    """Get a token, unless there is one."""
    with as_transient("keystone"):
        connection.session.get_token()


def project_id_of(connection: "Connection") -> str:
    """Return the id of the session's project."""
    with as_transient("keystone"):
        return str(connection.session.get_project_id())


def user_id_of(connection: "Connection") -> str:
    """Return the id of the session's user."""
    with as_transient("keystone"):
        return str(connection.session.get_user_id())


def request(  # noqa: PLR0917 - all that a call is made of
    connection: "Connection",
    service: Service,
    method: str,
    path: str,
    options: Mapping[str, Any],
    send_by: Deadline,
) -> Reply:
    """Make one call; `Transient` where it could not be sent by `send_by`."""
    mutating = method != "GET"
    if mutating:
        # A failed log-in must not be taken for a call that may have been carried out.
        log_in(connection)
    proxy = proxy_of(connection, service)
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
        # The process stood still, or the log-in took long: the right to send is to be checked
        # again.
        raise Transient("not_sent", detail="the time in which it might be sent is over")
    return send(service.proxy, lambda: proxy.request(path, method, **given), mutating=mutating)


def proxy_of(connection: "Connection", service: Service) -> Any:
    """Return the SDK's proxy of a service; the first time it asks the service for its versions."""
    with as_transient("cloud_unavailable"):
        return getattr(connection, service.proxy)


def send(service: str, call: Callable[[], Any], *, mutating: bool) -> Reply:
    """Make a call of the SDK; its answer, or the error that says what to do."""
    try:
        response = call()
    except Exception as error:
        raise from_exception(error, mutating=mutating) from None
    status = response.status_code
    if status >= 400:
        # Not `response.text`: where no encoding is told, requests would guess one.
        text = response.content.decode("utf-8", "replace")
        raise ErrorResponse(service, status, response.headers, text).as_error(mutating=mutating)
    try:
        body = orjson.loads(response.content) if response.content else None
    except orjson.JSONDecodeError:
        # A service that answers nonsense may still have done what it was asked.
        raise (Ambiguous if mutating else Transient)(
            "bad_answer", detail="the answer is no JSON"
        ) from None
    return Reply(status, body, response.headers.get("x-openstack-request-id"))


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
        _check_file(file)
    return OpenStackConfig(config_files=None if file is None else [file], app_name="ecs-worker")


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


def _with_limits(connection: "Connection", settings: CloudSettings) -> "Connection":
    from handlers.openstack.http import CallTimes, Transport  # noqa: PLC0415 - comes with the SDK

    times = CallTimes(settings.call_timeout, settings.call_limit)
    connection.session.timeout = times.silence
    for scheme in ("http://", "https://"):
        connection.session.session.mount(scheme, Transport(settings.threads, times))
    return connection
