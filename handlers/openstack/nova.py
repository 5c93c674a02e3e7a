"""Nova: the calls that are made and the shapes that are read, at the one microversion of
`Service.COMPUTE`.
"""

import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any
from urllib.parse import quote

from handlers.effects.waits import ResourceState
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.project import Project
from handlers.openstack.sessions import Reply, Service
from messages.commands import Force, Power
from messages.record import record

#: Statuses in which a server is well, as long as no task is under way.
AT_REST = frozenset({"ACTIVE", "SHUTOFF"})
ERROR = "ERROR"
VERIFY_RESIZE = "VERIFY_RESIZE"
#: The status of a server that the cloud keeps for a while after its deletion, with its volumes and
#: ports.
SOFT_DELETED = "SOFT_DELETED"
#: Statuses of a server that is gone: what the cloud keeps is the cloud's own to take away.
GONE = frozenset({"DELETED", SOFT_DELETED})
#: Statuses in which Nova lets metadata be changed, as long as no task is under way.
METADATA_STATES = frozenset({"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"})

#: Length of `2026-11-23T10:00:00`: Nova writes the same second in two ways.
_SECOND = 19


#: Name, vcpus, RAM in MiB, root disk in GiB. A flavor that was deleted and made anew under its old
#: name is another one.
FlavorContent = tuple[str, int, int, int]


@record
class Flavor:
    """A flavor: RAM in MiB, disk in GiB (0: the image's size). A server's own has no known id."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int

    @property
    def content(self) -> "FlavorContent":
        """The values by which a flavor is recognized."""
        return self.name, self.vcpus, self.ram, self.disk


@record
class Server:
    """A server as Nova says it is. `updated` is Nova's clock (ISO 8601, whole seconds)."""

    id: str
    project_id: str
    status: str
    task_state: str | None
    updated: str
    flavor_name: str
    vcpus: int
    ram: int
    disk: int
    #: None for a server that was booted from a volume.
    image_id: str | None
    metadata: Mapping[str, str]
    volume_ids: tuple[str, ...]
    #: Those of its volumes that Nova deletes with it.
    mortal_volume_ids: frozenset[str] = frozenset()
    created: str = ""
    locked: bool = False
    #: Why it is in ERROR, in Nova's words.
    fault: str | None = None
    #: All that Nova says, for views; two servers are not told apart by it.
    body: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def flavor(self) -> FlavorContent:
        """The flavor that it has."""
        return self.flavor_name, self.vcpus, self.ram, self.disk

    @property
    def busy(self) -> bool:
        """True while a task is under way."""
        return self.task_state is not None

    @property
    def state(self) -> ResourceState:
        """Its task while one is under way, else its status."""
        return ResourceState("server", self.id, self.task_state or self.status)

    @property
    def at_rest(self) -> bool:
        """True where it runs or is off, and nothing is under way with it."""
        return self.status in AT_REST and not self.busy

    @property
    def shown_name(self) -> str:
        """The name that a person knows it by."""
        return str(self.body.get("name") or self.id)

    @classmethod
    def from_api(cls, body: Mapping[str, Any]) -> "Server":
        """Read a server from Nova's JSON."""
        flavor = body["flavor"]
        image = body.get("image")
        volumes = body.get("os-extended-volumes:volumes_attached", ())
        return cls(
            id=body["id"],
            project_id=body["tenant_id"],
            status=body["status"],
            task_state=body.get("OS-EXT-STS:task_state"),
            updated=body["updated"],
            flavor_name=flavor["original_name"],
            vcpus=flavor["vcpus"],
            ram=flavor["ram"],
            disk=flavor["disk"],
            image_id=image["id"] if image else None,
            metadata=body.get("metadata") or {},
            volume_ids=tuple(volume["id"] for volume in volumes),
            mortal_volume_ids=frozenset(
                one["id"] for one in volumes if one.get("delete_on_termination")
            ),
            created=body.get("created") or "",
            locked=bool(body.get("locked")),
            fault=(body.get("fault") or {}).get("message"),
            body=body,
        )


@record
class ServerName:
    """A server's id and name, as a plain list shows them."""

    id: str
    name: str


@record
class SortBy:
    """A sort order by one of Nova's columns; ties are in the order of the ids."""

    column: str
    descending: bool

    def params(self) -> dict[str, list[str]]:
        """Return the query parameters."""
        return {
            "sort_key": [self.column, "uuid"],
            "sort_dir": ["desc" if self.descending else "asc", "asc"],
        }


@record
class InstanceAction:
    """One entry of a server's action log: `start_time` is Nova's clock; `finished` when every event
    of it has ended.
    """

    request_id: str
    action: str
    start_time: str
    failed: bool
    finished: bool
    detail: str | None = None
    user_id: str | None = None


@record
class ComputeLimits:
    """The rest of the project's quota; None where there is no limit, or Nova does not tell.

    `metadata_items` is the most that one server may have.
    """

    cores_left: int | None = None
    ram_left: int | None = None
    instances_left: int | None = None
    metadata_items: int | None = None


async def get_server(project: Project, server_id: str) -> Server:
    """Return one server, or raise `NotFound`."""
    reply = await project.get(Service.COMPUTE, f"/servers/{server_id}")
    return Server.from_api(reply.body["server"])


async def list_servers(project: Project, **filters: str) -> list[Server]:
    """List all of the project's servers that match; a call for each thousand."""
    found = await project.get_all(Service.COMPUTE, "/servers/detail", "servers", filters)
    return [Server.from_api(server) for server in found]


async def server_states(project: Project, **filters: str) -> AsyncIterator[list[Server]]:
    """List the project's servers that match, page by page, for those who wait for a state: without
    `body`.
    """
    async for page in project.pages(Service.COMPUTE, "/servers/detail", "servers", filters):
        yield [replace(Server.from_api(server), body={}) for server in page]


async def create_server(project: Project, server: Mapping[str, Any]) -> Reply:
    """Have a server made; its id is `body["server"]["id"]`. It is listed as soon as this is
    answered.
    """
    return await project.post(Service.COMPUTE, "/servers", {"server": dict(server)})


async def delete_server(project: Project, server_id: str) -> Reply:
    """Delete a server unless it is locked; it is gone (`NotFound`) some time later."""
    return await project.delete(Service.COMPUTE, f"/servers/{server_id}")


async def force_delete(project: Project, server_id: str) -> Reply:
    """Delete a server at once where the cloud would keep it for a while, or does so already."""
    return await _act(project, server_id, {"forceDelete": None})


async def unlock(project: Project, server_id: str) -> Reply:
    """Undo a lock; only an admin may undo an admin's."""
    return await _act(project, server_id, {"unlock": None})


async def list_names(project: Project, sort: SortBy) -> list[ServerName]:
    """List all of the project's servers, only id and name; a call for each thousand."""
    found = await project.get_all(Service.COMPUTE, "/servers", "servers", sort.params())
    return [ServerName(server["id"], server["name"]) for server in found]


async def list_part(
    project: Project, sort: SortBy, limit: int, marker: str | None
) -> tuple[list[Server], bool]:
    """List up to `limit` servers after `marker`, and say whether there may be more behind them;
    `CloudRefusal` 400 where the marker is gone.
    """
    params: dict[str, Any] = {**sort.params(), "limit": limit}
    if marker is not None:
        params["marker"] = marker
    reply = await project.get(Service.COMPUTE, "/servers/detail", params)
    listed = [Server.from_api(server) for server in reply.body["servers"]]
    return listed, bool(reply.body.get("servers_links"))


async def name_of_user(project: Project, image_id: str) -> str | None:
    """Return the name of a server that was made from an image; None where there is none."""
    reply = await project.get(Service.COMPUTE, "/servers", {"image": image_id, "limit": 1})
    return next((server["name"] or server["id"] for server in reply.body["servers"]), None)


async def change_power(project: Project, server_id: str, power: Power, force: Force) -> Reply:
    """Start, stop or reboot; answered 202 once Nova has set the task."""
    body: dict[str, Any] = (
        {"reboot": {"type": force.value}} if power is Power.REBOOT else {power.value: None}
    )
    return await _act(project, server_id, body)


async def resize(project: Project, server_id: str, flavor_id: str) -> Reply:
    """Begin a resize; it must be confirmed or reverted once the server is in VERIFY_RESIZE."""
    return await _act(project, server_id, {"resize": {"flavorRef": flavor_id}})


async def list_compute_hosts(admin: Project) -> list[str]:
    """List the names of all hosts that servers run on, at most a minute old; only an admin is told."""

    async def ask() -> list[str]:
        reply = await admin.get(Service.COMPUTE, "/os-services", {"binary": "nova-compute"})
        return [service["host"] for service in reply.body["services"]]

    return await admin.recent.get("hosts", ask, ttl=60.0)


def host_id(project_id: str, host: str) -> str:
    """Return the `hostId` under which a project sees a host: Nova's own formula."""
    return hashlib.sha224(f"{project_id}{host}".encode()).hexdigest()


async def list_tags(project: Project, server_id: str) -> list[str]:
    """List a server's tags, or raise `NotFound`."""
    tags: list[str] = (await project.get(Service.COMPUTE, f"/servers/{server_id}/tags")).body[
        "tags"
    ]
    return tags


async def replace_tags(project: Project, server_id: str, tags: Sequence[str]) -> Reply:
    """Give a server these tags and no others."""
    return await project.put(Service.COMPUTE, f"/servers/{server_id}/tags", {"tags": list(tags)})


async def create_image(
    project: Project, server_id: str, name: str, properties: Mapping[str, str]
) -> Reply:
    """Have an image made; answered once Glance knows of it."""
    return await _act(
        project, server_id, {"createImage": {"name": name, "metadata": dict(properties)}}
    )


async def confirm_resize(project: Project, server_id: str) -> Reply:
    """Keep the new flavor."""
    return await _act(project, server_id, {"confirmResize": None})


async def revert_resize(project: Project, server_id: str) -> Reply:
    """Go back to the old flavor."""
    return await _act(project, server_id, {"revertResize": None})


async def reset_state(admin: Project, server_id: str, *, well: bool = True) -> Reply:
    """Declare a server in ERROR well (ACTIVE), or put it back there; only an admin may."""
    return await _act(admin, server_id, {"os-resetState": {"state": "active" if well else "error"}})


async def open_console(project: Project, server_id: str, console_type: str) -> str:
    """Return a fresh URL of the server's VNC console."""
    reply = await project.post(
        Service.COMPUTE,
        f"/servers/{server_id}/remote-consoles",
        {"remote_console": {"protocol": "vnc", "type": console_type}},
    )
    url: str = reply.body["remote_console"]["url"]
    return url


async def set_metadata(project: Project, server_id: str, metadata: Mapping[str, str]) -> Reply:
    """Set these items and leave the others; doing it twice is doing it once."""
    return await project.post(
        Service.COMPUTE, f"/servers/{server_id}/metadata", {"metadata": dict(metadata)}
    )


async def remove_metadata(project: Project, server_id: str, item: str) -> Reply:
    """Take one item away; `NotFound` where there is none."""
    return await project.delete(Service.COMPUTE, f"/servers/{server_id}/metadata/{item}")


async def list_actions(project: Project, server_id: str) -> list[InstanceAction]:
    """List the server's action log, newest first; it does not say whether they have finished."""
    reply = await project.get(Service.COMPUTE, f"/servers/{server_id}/os-instance-actions")
    return [_action(action, ()) for action in reply.body["instanceActions"]]


async def find_actions(project: Project, server_id: str, action: str, since: str) -> list[str]:
    """List the request ids of such actions since a time of Nova's clock, the newest first."""
    return [
        entry.request_id
        for entry in await list_actions(project, server_id)
        if entry.action == action and entry.start_time[:_SECOND] >= since[:_SECOND]
    ]


async def find_action(
    project: Project, server_id: str, action: str, since: str, others: Collection[str] = ()
) -> str | None:
    """Return the request id of the newest such action since a time of Nova's clock; None where
    there is none.

    `others` are request ids of actions that are known to be somebody else's.
    """
    found = await find_actions(project, server_id, action, since)
    return next((one for one in found if one not in others), None)


async def get_action(project: Project, server_id: str, request_id: str) -> InstanceAction:
    """Return one action with its events by the request id of its call, or raise `NotFound`."""
    reply = await project.get(
        Service.COMPUTE, f"/servers/{server_id}/os-instance-actions/{request_id}"
    )
    action = reply.body["instanceAction"]
    return _action(action, action.get("events") or ())


async def list_flavors(project: Project) -> list[Flavor]:
    """List every flavor that the project may use."""
    found = await project.get_all(Service.COMPUTE, "/flavors/detail", "flavors", {})
    return [
        Flavor(flavor["id"], flavor["name"], flavor["vcpus"], flavor["ram"], flavor["disk"])
        for flavor in found
    ]


async def list_zones(project: Project) -> set[str]:
    """Return the names of the availability zones in which servers can be made."""
    reply = await project.get(Service.COMPUTE, "/os-availability-zone")
    return {
        zone["zoneName"]
        for zone in reply.body["availabilityZoneInfo"]
        if zone["zoneState"]["available"]
    }


async def get_key_pair(project: Project, name: str) -> None:
    """Look for one of the service account's own key pairs; raises `NotFound`."""
    await project.get(Service.COMPUTE, f"/os-keypairs/{quote(name, safe='')}")


async def get_limits(project: Project) -> ComputeLimits:
    """Return the rest of the project's quota; nothing is known where the cloud forbids to ask."""
    try:
        reply = await project.get(Service.COMPUTE, "/limits")
    except CloudRefusal:
        return ComputeLimits()
    absolute = reply.body["limits"]["absolute"]
    most = absolute.get("maxServerMeta", -1)
    return ComputeLimits(
        cores_left=_left(absolute, "maxTotalCores", "totalCoresUsed"),
        ram_left=_left(absolute, "maxTotalRAMSize", "totalRAMUsed"),
        instances_left=_left(absolute, "maxTotalInstances", "totalInstancesUsed"),
        metadata_items=most if most >= 0 else None,
    )


def _left(absolute: Mapping[str, int], most: str, used: str) -> int | None:
    limit = absolute.get(most, -1)
    return limit - absolute[used] if limit >= 0 and used in absolute else None


async def _act(project: Project, server_id: str, body: Mapping[str, Any]) -> Reply:
    return await project.post(Service.COMPUTE, f"/servers/{server_id}/action", body)


def _action(action: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> InstanceAction:
    listed = list(events)
    return InstanceAction(
        request_id=action["request_id"],
        action=action["action"],
        start_time=action["start_time"],
        failed=action.get("message") == "Error"
        or any(event.get("result") == "Error" for event in listed),
        finished=bool(listed) and all(event.get("finish_time") for event in listed),
        detail=next((event["event"] for event in listed if event.get("result") == "Error"), None),
        user_id=action.get("user_id"),
    )
