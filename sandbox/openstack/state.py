"""The state of the simulated cloud. One event loop changes it, so nothing is locked; gone with
the process.
"""

import asyncio
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.openstack.faults import Faults
from sandbox.openstack.nets import Nets

#: Everybody's.
PASSWORD = "ecs-sandbox"  # noqa: S105 - opens nothing but this
#: Where servers and volumes come to be unless another zone is named.
ZONE = "nova"
_TOKEN_LIFE = timedelta(hours=1)


def new_id() -> str:
    """A UUID as OpenStack writes them."""
    return str(uuid.uuid4())


def stamp(time: datetime, form: str = "Z") -> str:
    """A time as the services write it: whole seconds, with Z (Nova, Glance) or six zeros (Cinder,
    action logs).
    """
    text = time.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}Z" if form == "Z" else f"{text}.000000"


@dataclass(slots=True, eq=False)
class Project:
    """A tenant; an admin may give it another name."""

    id: str
    name: str


@dataclass(slots=True, eq=False)
class User:
    """Somebody with a password, and a role in some projects."""

    id: str
    name: str
    projects: tuple[str, ...]
    admin: bool = False
    password: str = PASSWORD


@dataclass(frozen=True, slots=True)
class Token:
    """A log-in."""

    user: User
    project: Project
    issued: datetime

    @property
    def expires(self) -> datetime:
        """The time at which it ends."""
        return self.issued + _TOKEN_LIFE


@dataclass(frozen=True, slots=True)
class Flavor:
    """A size: RAM in MiB, disk in GiB; for some projects only, by their ids, or for all (None)."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int
    projects: set[str] | None = field(default=None, compare=False)

    def may_be_used_by(self, project: Project) -> bool:
        """True where it is public, or the project has been given access."""
        return self.projects is None or project.id in self.projects


@dataclass(slots=True)
class Image:
    """An image; size in bytes, `min_disk` in GiB, `min_ram` in MiB."""

    id: str
    name: str
    owner: str
    created: datetime
    properties: dict[str, str]
    status: str = "active"
    visibility: str = "public"
    protected: bool = False
    size: int = 1048576
    min_disk: int = 1
    min_ram: int = 64
    tags: list[str] = field(default_factory=list)
    updated: datetime | None = None


@dataclass(slots=True)
class Volume:
    """A volume; `changed` is None until something about it changes."""

    id: str
    name: str
    project: Project
    size: int
    type: str
    created: datetime
    status: str = "available"
    bootable: bool = False
    image: Image | None = None
    server_id: str | None = None
    device: str | None = None
    goes_with_server: bool = False
    changed: datetime | None = None
    #: GiB by which it is growing; Cinder reserves them of the quota.
    growing: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    #: The snapshot that it was made from.
    snapshot_id: str | None = None
    #: The volume group that it is in.
    group_id: str | None = None
    #: Whether several servers may have it (`multiattach`), and those that have it besides the
    #: first.
    shared: bool = False
    others: list[str] = field(default_factory=list)
    zone: str = ZONE

    def become(self, status: str) -> None:
        """Change the status."""
        self.status = status
        self.changed = datetime.now(UTC)


@dataclass(slots=True)
class Snapshot:
    """A volume's data at one time; size in GiB."""

    id: str
    name: str
    volume: Volume
    size: int
    created: datetime
    status: str = "available"


@dataclass(slots=True)
class Event:
    """A step of an action."""

    name: str
    start: datetime
    finish: datetime | None = None
    failed: bool = False


@dataclass(slots=True)
class Action:
    """An entry of a server's action log."""

    name: str
    request_id: str
    user_id: str
    start: datetime
    failed: bool = False
    events: list[Event] = field(default_factory=list)

    @contextmanager
    def event(self, name: str) -> Iterator[Event]:
        """A step while it lasts."""
        event = Event(name, datetime.now(UTC))
        self.events.append(event)
        yield event
        event.finish = datetime.now(UTC)
        self.failed |= event.failed


@dataclass(slots=True)
class Server:
    """A server; `status` follows from `vm_state` and `task_state` as in Nova."""

    id: str
    name: str
    project: Project
    user: User
    flavor: Flavor
    image: Image | None
    created: datetime
    updated: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    vm_state: str = "building"
    task_state: str | None = "scheduling"
    fault: str | None = None
    locked: bool = False
    locked_by_admin: bool = False
    deleted: bool = False
    old_flavor: Flavor | None = None
    old_vm_state: str = "active"
    volumes: list[Volume] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    key_name: str | None = None
    user_data: str | None = None
    zone: str = ZONE
    #: The ports that Nova made for it, which go with it.
    own_ports: set[str] = field(default_factory=set)
    #: Held while its host reboots it.
    on_its_host: asyncio.Lock = field(default_factory=asyncio.Lock)

    def become(self, vm_state: str | None = None, task_state: str | None = None) -> None:
        """Change what the server is and does."""
        self.vm_state = vm_state or self.vm_state
        self.task_state = task_state
        self.updated = datetime.now(UTC)

    def log(self, name: str, request_id: str, user_id: str) -> Action:
        """Write down an action that begins now."""
        action = Action(name, request_id, user_id, datetime.now(UTC))
        self.actions.insert(0, action)
        return action


class World:
    """All there is, and the clock by which it changes. `pace` stretches or shortens what takes
    time.
    """

    def __init__(self, pace: float = 1.0, region: str = "RegionOne") -> None:
        self.pace = pace
        self.region = region
        self.faults = Faults()
        self.calls: list[str] = []
        #: Extensions of Neutron that there are not, and the newest microversions of Nova and Cinder
        #: where they are old.
        self.without: set[str] = set()
        self.newest: dict[str, str] = {}
        #: The calls that changed something.
        self.executed: list[str] = []
        #: The `traceparent` of each call that had one.
        self.traces: list[str] = []
        self.projects: dict[str, Project] = {}
        self.users: dict[str, User] = {}
        #: Application credentials by id: the secret, whose it is, and in which project.
        self.credentials: dict[str, tuple[str, User, Project]] = {}
        self.tokens: dict[str, Token] = {}
        self.flavors: dict[str, Flavor] = {}
        self.images: dict[str, Image] = {}
        self.types: dict[str, str] = {}
        #: Names of the volume types whose volumes several servers may have.
        self.shared_types: set[str] = set()
        #: Nova's and Cinder's availability zones, and whether each is available.
        self.zones = {ZONE: True, "edge": True}
        self.volume_zones = {ZONE: True}
        self.nets = Nets()
        self.keys: set[tuple[str, str]] = set()
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.servers: dict[str, Server] = {}
        #: What an admin has set, by project and name.
        self.quotas: dict[tuple[str, str], int] = {}
        #: Seconds for which a deleted server is kept (`reclaim_instance_interval`); 0: it goes at
        #: once.
        self.reclaim_interval = 0.0
        self._running: set[asyncio.Task[None]] = set()
        _furnish(self)

    def clear_faults(self, points: str) -> None:
        """Forget the rules of points that begin so; with all of them, what the cloud is without."""
        self.faults.clear(points)
        if not points:
            self.without, self.newest = set(), {}

    async def lasts(self, seconds: float) -> None:
        """Let time go by."""
        await asyncio.sleep(seconds * self.pace)

    async def rest(self) -> None:
        """Wait until nothing happens by itself any more."""
        while self._running:
            await asyncio.wait(self._running)

    def run(self, course: Coroutine[Any, Any, None]) -> None:
        """Let something happen by itself."""
        task = asyncio.get_running_loop().create_task(course)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _furnish(world: World) -> None:
    """The same furniture as the real control plane's, under the same names."""
    for name in ("admin", "tenant-a", "tenant-b"):
        project = Project(uuid.uuid4().hex, name)
        world.projects[project.id] = project
    ids = {project.name: project.id for project in world.projects.values()}
    for name, projects, admin in (
        ("admin", ("admin",), True),
        ("user-a", ("tenant-a",), False),
        ("user-b", ("tenant-b",), False),
        ("ecs-worker", ("tenant-a", "tenant-b"), False),
        # A service account with more rights than it should have: it sees what is another project's.
        ("almighty", ("tenant-a", "tenant-b"), True),
    ):
        world.users[name] = User(uuid.uuid4().hex, name, tuple(ids[one] for one in projects), admin)
    for name, vcpus, ram, disk in (
        ("S1.small.1", 1, 1024, 10),
        ("S1.medium.2", 2, 4096, 20),
        ("S1.large.2", 4, 8192, 40),
        ("S1.xlarge.2", 8, 16384, 80),
        ("too-big-for-any-host", 2000, 1024, 10),
    ):
        flavor = Flavor(new_id(), name, vcpus, ram, disk)
        world.flavors[flavor.id] = flavor
    properties = {"os_distro": "cirros", "os_version": "0.6", "architecture": "x86_64"}
    image = Image(new_id(), "cirros-like", ids["admin"], datetime.now(UTC), properties)
    world.images[image.id] = image
    world.types = {name: new_id() for name in ("SATA", "SSD", "__DEFAULT__")}
    public = world.nets.add_network(ids["admin"], "public", external=True)
    world.nets.add_subnet(ids["admin"], public["id"], "public", "172.24.0.0/16")
    for number, tenant in enumerate(("tenant-a", "tenant-b"), start=1):
        network = world.nets.add_network(ids[tenant], f"{tenant}-net")
        subnet = world.nets.add_subnet(
            ids[tenant], network["id"], f"{tenant}-subnet", f"10.{number}.0.0/16"
        )
        world.nets.add_router(ids[tenant], f"{tenant}-router", subnet)
