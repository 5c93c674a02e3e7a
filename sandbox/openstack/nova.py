"""Nova: servers, their action logs, consoles and metadata; flavors and limits."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.openstack import quotas
from sandbox.openstack.building import attach_port, attach_volume, begin_deletion, new_server
from sandbox.openstack.extensions import newest
from sandbox.openstack.nova_actions import ServerActions
from sandbox.openstack.server_images import begin_image
from sandbox.openstack.state import ZONE, Action, Flavor, Server, World, new_id, stamp
from sandbox.openstack.texts import (
    check_nova_items,
    check_nova_name,
    check_nova_rows,
    check_nova_tags,
)
from sandbox.openstack.wire import (
    ApiError,
    Caller,
    body_of,
    caller,
    links,
    page_of,
    request_id,
    root_of,
)

#: Status by vm_state, and by vm_state and task_state; as in Nova.
_STATUS = {
    "active": "ACTIVE",
    "building": "BUILD",
    "stopped": "SHUTOFF",
    "resized": "VERIFY_RESIZE",
    "error": "ERROR",
    "paused": "PAUSED",
    "suspended": "SUSPENDED",
    "deleted": "DELETED",
    "soft-delete": "SOFT_DELETED",
}
_RESIZE = dict.fromkeys(
    ("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE"
)
_TASK_STATUS = {
    "active": _RESIZE
    | dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT")
    | dict.fromkeys(
        ("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT"
    ),
    "stopped": _RESIZE,
    "resized": {"resize_reverting": "REVERT_RESIZE"},
}
_STATUSES = {
    *_STATUS.values(),
    *(status for tasks in _TASK_STATUS.values() for status in tasks.values()),
}
_POWER = {"active": 1, "stopped": 4, "resized": 1, "paused": 3}
_TAGGED_IN = ("active", "paused", "suspended", "stopped")
_NO_METADATA_IN = ("resized", "error", "building", "soft-delete")
#: Everything is on one.
_HOST = "compute-1"
_CONSOLES = {"novnc": "vnc_auto.html"}


class Nova:
    """The part of the API that is called."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._actions = ServerActions(world)

    def routes(self) -> list[Route]:
        """The handler of each call."""
        return [
            Route("/v2.1/", self.version),
            Route("/v2.1", self.version),
            Route("/v2.1/servers/detail", self.list_servers),
            Route("/v2.1/servers", self.list_names),
            Route("/v2.1/os-services", self.services),
            Route("/v2.1/os-services/{service_id}", self.change_service, methods=["PUT"]),
            Route("/v2.1/servers", self.create, methods=["POST"]),
            Route("/v2.1/servers/{server_id}", self.show),
            Route("/v2.1/servers/{server_id}", self.delete, methods=["DELETE"]),
            Route("/v2.1/servers/{server_id}/action", self.act, methods=["POST"]),
            Route("/v2.1/servers/{server_id}/remote-consoles", self.open_console, methods=["POST"]),
            Route("/v2.1/servers/{server_id}/metadata", self.set_metadata, methods=["POST"]),
            Route(
                "/v2.1/servers/{server_id}/metadata/{item}",
                self.remove_metadata,
                methods=["DELETE"],
            ),
            Route("/v2.1/servers/{server_id}/os-instance-actions", self.list_actions),
            Route("/v2.1/servers/{server_id}/os-instance-actions/{request_id}", self.show_action),
            Route("/v2.1/servers/{server_id}/tags", self.tags),
            Route("/v2.1/servers/{server_id}/tags", self.replace_tags, methods=["PUT"]),
            Route("/v2.1/os-keypairs", self.add_key, methods=["POST"]),
            Route("/v2.1/os-keypairs/{name}", self.show_key),
            Route("/v2.1/os-keypairs/{name}", self.remove_key, methods=["DELETE"]),
            Route("/v2.1/os-availability-zone", self.zones),
            Route("/v2.1/os-quota-sets/{project_id}", self.set_quotas, methods=["PUT"]),
            Route(
                "/v2.1/servers/{server_id}/os-volume_attachments",
                self.attach_volume,
                methods=["POST"],
            ),
            Route("/v2.1/servers/{server_id}/os-interface", self.attach_port, methods=["POST"]),
            Route("/v2.1/flavors/detail", self.flavors),
            Route("/v2.1/flavors", self.flavors),
            Route("/v2.1/flavors", self.add_flavor, methods=["POST"]),
            Route("/v2.1/flavors/{flavor_id}", self.remove_flavor, methods=["DELETE"]),
            Route("/v2.1/flavors/{flavor_id}/action", self.give_flavor, methods=["POST"]),
            Route("/v2.1/limits", self.limits),
        ]

    async def version(self, request: Request) -> Response:
        base = root_of(request)
        shown = {
            "id": "v2.1",
            "status": "CURRENT",
            "version": newest(self._world, "nova"),
            "min_version": "2.1",
            "media-types": [],
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{base}/v2.1/"}],
        }
        return JSONResponse({"version": shown})

    async def list_servers(self, request: Request) -> Response:
        page, rest = self._listed(request)
        shown = [_shown(self._world, self._world.servers[one["id"]], request) for one in page]
        return _answer({"servers": shown} | rest)

    async def list_names(self, request: Request) -> Response:
        page, rest = self._listed(request)
        return _answer({"servers": [one | {"links": []} for one in page]} | rest)

    def _listed(self, request: Request) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Ids and names of what the query asks for, and the link to what follows."""
        query = request.query_params
        name, status = query.get("name", ""), query.get("status", "").upper()
        if status and status not in _STATUSES:
            raise ApiError(400, "Invalid status value")
        found = [
            one
            for one in self._world.servers.values()
            if _is_in_scope(one, request)
            and _is_listed(one, request)
            and re.search(name, one.name, re.IGNORECASE)
            and status in ("", status_of(one))
            and query.get("image") in (None, one.image.id if one.image else None)
        ]
        named = [{"id": one.id, "name": one.name} for one in _in_order(found, query)]
        page, marker = page_of(named, request)
        return page, {"servers_links": links(marker, request)} if marker else {}

    async def services(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow os_compute_api:os-services:list to be performed."
            )
        return _answer({"services": [self._service()]})

    async def change_service(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow os_compute_api:os-services:update to be performed."
            )
        self._world.zones[ZONE] = (await body_of(request))["status"] == "enabled"
        return _answer({"service": self._service()})

    def _service(self) -> dict[str, Any]:
        status = "enabled" if self._world.zones[ZONE] else "disabled"
        return {
            "id": 1,
            "binary": "nova-compute",
            "host": _HOST,
            "zone": ZONE,
            "status": status,
            "state": "up",
        }

    async def show(self, request: Request) -> Response:
        return _answer({"server": _shown(self._world, _server(self._world, request), request)})

    async def create(self, request: Request) -> Response:
        wanted = (await body_of(request)).get("server", {})
        for number in range(int(wanted.get("min_count", 1))):
            name = (
                f"{wanted.get('name')}-{number + 1}"
                if "min_count" in wanted
                else wanted.get("name", "")
            )
            check_nova_name(name)
            server = new_server(
                self._world, wanted | {"name": name}, caller(request), request_id(request)
            )
        password = wanted.get("adminPass") or "not-a-real-one"
        return _answer({"server": {"id": server.id, "links": [], "adminPass": password}}, 202)

    async def delete(self, request: Request) -> Response:
        server = _server(self._world, request)
        begin_deletion(self._world, server, caller(request))
        return Response(status_code=204)

    async def act(self, request: Request) -> Response:
        body, server = await body_of(request), _server(self._world, request)
        if "createImage" in body:
            image_id = begin_image(
                self._world, server, body["createImage"], caller(request), request_id(request)
            )
            return _answer({"image_id": image_id}, 202)
        return Response(
            status_code=self._actions.act(server, body, caller(request), request_id(request))
        )

    async def open_console(self, request: Request) -> Response:
        server, wanted = (
            _server(self._world, request),
            (await body_of(request)).get("remote_console", {}),
        )
        page = _CONSOLES.get(wanted.get("type", ""))
        if page is None:
            raise ApiError(400, f"Invalid console type {wanted.get('type')}")
        if server.vm_state != "active":
            raise ApiError(409, f"Instance {server.id} is not ready")
        url = f"http://127.0.0.1:6080/{page}?path=%3Ftoken%3D{new_id()}"
        return _answer({"remote_console": {"protocol": "vnc", "type": wanted["type"], "url": url}})

    async def set_metadata(self, request: Request) -> Response:
        server, wanted = _server(self._world, request), (await body_of(request)).get("metadata", {})
        _check_metadata(server, "update metadata", caller(request))
        check_nova_items(wanted)
        check_nova_rows(wanted.values())
        quotas.check_metadata(self._world, server.project, server.metadata | wanted)
        server.metadata |= wanted
        server.updated = datetime.now(UTC)
        return _answer({"metadata": server.metadata})

    async def remove_metadata(self, request: Request) -> Response:
        server, item = _server(self._world, request), request.path_params["item"]
        if item not in server.metadata:
            raise ApiError(404, "Metadata item was not found")
        _check_metadata(server, "delete metadata", caller(request))
        del server.metadata[item]
        server.updated = datetime.now(UTC)
        return Response(status_code=204)

    async def tags(self, request: Request) -> Response:
        return _answer({"tags": _server(self._world, request).tags})

    async def replace_tags(self, request: Request) -> Response:
        server, wanted = _server(self._world, request), (await body_of(request)).get("tags")
        if not isinstance(wanted, list) or not all(
            re.fullmatch("[^,/]{1,60}", str(one)) for one in wanted
        ):
            raise ApiError(400, f"Invalid input for field/attribute tags. Value: {wanted}.")
        if server.vm_state not in _TAGGED_IN:
            raise ApiError(
                409,
                f"Cannot 'update tags' instance {server.id} while it is in vm_state {server.vm_state}",
            )
        check_nova_tags(wanted)
        server.tags = list(dict.fromkeys(wanted))
        return _answer({"tags": server.tags})

    async def add_key(self, request: Request) -> Response:
        wanted = (await body_of(request))["keypair"]
        self._world.keys.add((caller(request).user.id, wanted["name"]))
        return _answer({"keypair": wanted}, 201)

    async def show_key(self, request: Request) -> Response:
        name, who = request.path_params["name"], caller(request)
        if (who.user.id, name) not in self._world.keys:
            raise ApiError(404, f"Keypair {name} not found for user {who.user.id}")
        return _answer({"keypair": {"name": name, "user_id": who.user.id}})

    async def remove_key(self, request: Request) -> Response:
        self._world.keys.discard((caller(request).user.id, request.path_params["name"]))
        return Response(status_code=202)

    async def zones(self, request: Request) -> Response:
        caller(request)
        listed = [
            {"zoneName": name, "zoneState": {"available": is_available}, "hosts": None}
            for name, is_available in self._world.zones.items()
        ]
        return _answer({"availabilityZoneInfo": listed})

    async def set_quotas(self, request: Request) -> Response:
        refusal = "Policy doesn't allow os_compute_api:os-quota-sets:update to be performed."
        return _answer(
            {"quota_set": await quotas.change(self._world, request, "quota_set", refusal)}
        )

    async def attach_volume(self, request: Request) -> Response:
        server, wanted = _server(self._world, request), (await body_of(request))["volumeAttachment"]
        volume = self._world.volumes.get(wanted["volumeId"])
        if volume is None or volume.project is not server.project:
            raise ApiError(404, f"Volume {wanted['volumeId']} could not be found.")
        attach_volume(self._world, server, volume)
        return _answer(
            {"volumeAttachment": {"id": volume.id, "volumeId": volume.id, "device": volume.device}}
        )

    async def attach_port(self, request: Request) -> Response:
        server, wanted = (
            _server(self._world, request),
            (await body_of(request))["interfaceAttachment"],
        )
        port = attach_port(self._world, server, wanted["net_id"])
        return _answer({"interfaceAttachment": {"net_id": wanted["net_id"], "port_id": port["id"]}})

    async def list_actions(self, request: Request) -> Response:
        server = _server(self._world, request)
        return _answer({"instanceActions": [_action(one, server) for one in server.actions]})

    async def show_action(self, request: Request) -> Response:
        server, wanted = _server(self._world, request), request.path_params["request_id"]
        for action in server.actions:
            if action.request_id == wanted:
                return _answer(
                    {"instanceAction": _action(action, server) | {"events": _events(action)}}
                )
        raise ApiError(404, f"Action for request_id {wanted} on instance {server.id} not found")

    async def flavors(self, request: Request) -> Response:
        project = caller(request).project
        listed = [one for one in self._world.flavors.values() if one.may_be_used_by(project)]
        return _answer({"flavors": [_flavor(one) for one in listed]})

    async def add_flavor(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow os_compute_api:os-flavor-manage:create to be performed."
            )
        wanted = (await body_of(request))["flavor"]
        if any(one.name == wanted["name"] for one in self._world.flavors.values()):
            raise ApiError(409, f"Flavor with name {wanted['name']} already exists.")
        access = None if wanted.get("os-flavor-access:is_public", True) else set[str]()
        flavor = Flavor(
            new_id(), wanted["name"], wanted["vcpus"], wanted["ram"], wanted["disk"], access
        )
        self._world.flavors[flavor.id] = flavor
        return _answer({"flavor": _flavor(flavor)})

    async def give_flavor(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow os_compute_api:os-flavor-access:add_tenant_access."
            )
        flavor = self._world.flavors[request.path_params["flavor_id"]]
        if flavor.projects is None:
            raise ApiError(409, f"Can not add access to a public flavor: {flavor.id}.")
        flavor.projects.add((await body_of(request))["addTenantAccess"]["tenant"])
        access = [{"flavor_id": flavor.id, "tenant_id": one} for one in sorted(flavor.projects)]
        return _answer({"flavor_access": access})

    async def remove_flavor(self, request: Request) -> Response:
        if not caller(request).is_admin:
            raise ApiError(
                403, "Policy doesn't allow os_compute_api:os-flavor-manage:delete to be performed."
            )
        # Servers keep what they have of it.
        flavor_id = request.path_params["flavor_id"]
        if self._world.flavors.pop(flavor_id, None) is None:
            raise ApiError(404, f"Flavor {flavor_id} could not be found.")
        return Response(status_code=202)

    async def limits(self, request: Request) -> Response:
        project = caller(request).project
        used = quotas.compute_usage(self._world, project)
        most = {name: quotas.limit_of(self._world, project, name) for name in used}
        absolute = {
            "maxTotalCores": most["cores"],
            "totalCoresUsed": used["cores"],
            "maxTotalRAMSize": most["ram"],
            "totalRAMUsed": used["ram"],
            "maxTotalInstances": most["instances"],
            "totalInstancesUsed": used["instances"],
            "maxServerMeta": quotas.limit_of(self._world, project, "metadata_items"),
        }
        return _answer({"limits": {"rate": [], "absolute": absolute}})


def status_of(server: Server) -> str:
    """Nova's status for what the server is and does."""
    of_task = _TASK_STATUS.get(server.vm_state, {})
    return of_task.get(server.task_state or "", _STATUS[server.vm_state])


def _check_metadata(server: Server, what: str, who: Caller) -> None:
    if server.locked and not who.is_admin:
        raise ApiError(409, f"Instance {server.id} is locked")
    wrong = f"vm_state {server.vm_state}" if server.vm_state in _NO_METADATA_IN else None
    if wrong is None and server.task_state is not None:
        wrong = f"task_state {server.task_state}"
    if wrong is not None:
        raise ApiError(409, f"Cannot '{what}' instance {server.id} while it is in {wrong}")


def _in_order(servers: list[Server], query: QueryParams) -> list[Server]:
    """By the columns that are asked for, the last one first: sorting keeps what is in order
    already.
    """
    columns = {
        "created_at": lambda one: stamp(one.created),
        "display_name": lambda one: one.name.lower(),
        "uuid": lambda one: one.id,
    }
    asked = list(zip(query.getlist("sort_key"), query.getlist("sort_dir"), strict=True))
    if any(column not in columns for column, _ in asked):
        raise ApiError(400, f"Invalid input for query parameters sort_key. Value: {asked}")
    if not asked:
        return sorted(servers, key=lambda one: one.created, reverse=True)
    for column, direction in reversed(asked):
        servers = sorted(servers, key=columns[column], reverse=direction == "desc")
    return servers


def _is_in_scope(server: Server, request: Request) -> bool:
    who = caller(request)
    if who.is_admin and request.query_params.get("all_tenants") == "1":
        return request.query_params.get("project_id") in (None, server.project.id)
    return server.project is who.project


def _is_listed(server: Server, request: Request) -> bool:
    since = request.query_params.get("changes-since")
    if caller(request).is_admin:
        if request.query_params.get("uuid", server.id) != server.id:
            return False
        if request.query_params.get("deleted") == "true":
            return server.deleted or server.vm_state == "soft-delete"
    # For all others, only a list of changes shows what is gone, or kept for a while.
    is_there = not server.deleted and server.vm_state != "soft-delete"
    return is_there if since is None else stamp(server.updated) >= since


def _server(world: World, request: Request) -> Server:
    found, who = world.servers.get(request.path_params["server_id"]), caller(request)
    if found is None or found.deleted or not (found.project is who.project or who.is_admin):
        raise ApiError(404, f"Instance {request.path_params['server_id']} could not be found.")
    return found


def _shown(world: World, server: Server, request: Request) -> dict[str, Any]:
    flavor = server.flavor
    addresses = world.nets.addresses_of(server.id)
    base = root_of(request)
    body: dict[str, Any] = {
        "id": server.id,
        "name": server.name,
        "status": status_of(server),
        "tenant_id": server.project.id,
        "user_id": server.user.id,
        "created": stamp(server.created),
        "updated": stamp(server.updated),
        "flavor": {
            "vcpus": flavor.vcpus,
            "ram": flavor.ram,
            "disk": flavor.disk,
            "ephemeral": 0,
            "swap": 0,
            "original_name": flavor.name,
            "extra_specs": {},
        },
        "image": {"id": server.image.id, "links": []} if server.image else "",
        "metadata": server.metadata,
        "addresses": addresses,
        "key_name": server.key_name,
        "locked": server.locked,
        "tags": server.tags,
        "hostId": _host_id(server),
        "description": None,
        "config_drive": "",
        "OS-EXT-AZ:availability_zone": server.zone,
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": server.vm_state,
        "OS-EXT-STS:power_state": _POWER.get(server.vm_state, 0),
        "os-extended-volumes:volumes_attached": [
            {
                "id": one.id,
                "delete_on_termination": one.goes_with_server and one.server_id == server.id,
            }
            for one in server.volumes
        ],
        "links": [{"rel": "self", "href": f"{base}/v2.1/servers/{server.id}"}],
    }
    if addresses:
        body["security_groups"] = [{"name": "default"}]
    if caller(request).is_admin:
        body |= {"OS-EXT-SRV-ATTR:host": _HOST, "OS-EXT-SRV-ATTR:user_data": server.user_data}
    if server.fault is not None:
        body["fault"] = {"code": 500, "created": stamp(server.updated), "message": server.fault}
    return body


def _host_id(server: Server) -> str:
    """The host as a tenant may know it."""
    return hashlib.sha224(f"{server.project.id}{_HOST}".encode()).hexdigest()


def _flavor(flavor: Flavor) -> dict[str, Any]:
    return {
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.ram,
        "disk": flavor.disk,
        "vcpus": flavor.vcpus,
        "swap": "",
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": flavor.projects is None,
        "rxtx_factor": 1.0,
        "links": [],
        "description": None,
        "extra_specs": {},
    }


def _action(action: Action, server: Server) -> dict[str, Any]:
    return {
        "action": action.name,
        "instance_uuid": server.id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": server.project.id,
        "start_time": stamp(action.start, "micro"),
        "message": "Error" if action.failed else None,
        "updated_at": stamp(server.updated, "micro"),
    }


def _events(action: Action) -> list[dict[str, Any]]:
    return [
        {
            "event": one.name,
            "start_time": stamp(one.start, "micro"),
            "finish_time": stamp(one.finish, "micro") if one.finish else None,
            "result": ("Error" if one.failed else "Success") if one.finish else None,
            "hostId": "",
        }
        for one in action.events
    ]


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(body, status, {"OpenStack-API-Version": "compute 2.67"})
