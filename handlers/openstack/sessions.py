"""The SDK's sessions: clouds.yaml, and who acts in which project.

Every function blocks, and raises `Transient` for whatever the SDK raises.
"""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from handlers.effects.backoff import DEFAULT_TIMING, EffectTiming
from handlers.openstack.errors import as_transient
from messages.errors import Transient

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
        from openstack.connection import Connection  # noqa: PLC0415 - most of a second, and tens of megabytes

        connection = Connection(config=_configuration(settings.config_file).get_one(cloud=cloud))
    return _with_limits(connection, settings)


def connect_to(account: "Connection", project_id: str, settings: CloudSettings) -> "Connection":
    """Open a session of the same account in another project."""
    with as_transient("cloud_unavailable"):
        connection = account.connect_as(project_id=project_id)
    return _with_limits(connection, settings)


def project_id_of(connection: "Connection") -> str:
    """Return the id of the session's project."""
    with as_transient("keystone"):
        return str(connection.session.get_project_id())


def user_id_of(connection: "Connection") -> str:
    """Return the id of the session's user."""
    with as_transient("keystone"):
        return str(connection.session.get_user_id())


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


def _with_limits(connection: "Connection", settings: CloudSettings) -> "Connection":
    from handlers.openstack.http import CallTimes, Transport  # noqa: PLC0415 - comes with the SDK

    times = CallTimes(settings.call_timeout, settings.call_limit)
    connection.session.timeout = times.silence
    for scheme in ("http://", "https://"):
        connection.session.session.mount(scheme, Transport(settings.threads, times))
    return connection
