"""The kinds of effects that are killed in the middle: for each a function that asks for it, and a
line of `KINDS`.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Requester
from tests.support.new_orders import new
from tests.support.orders import paid, soft_down
from tests.support.tenant import Tenant

#: Resources by kind and id.
Resource = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and what there must be of it in the end.

    `effect` is the regular expression of the name of the effect that is meant; `calls` are regular
    expressions of the calls that must have been executed just once, of all that changes anything
    (`SimulatedOpenStack.executed`); `actions` is what Nova's own log must say of a server; `holds`
    looks at whatever else there is to see.
    """

    kind: str
    message_id: str
    publish: Callable[[Requester], object]
    effect: str
    code: int | str
    finals: Mapping[Resource, str]
    calls: tuple[str, ...]
    actions: Mapping[str, list[str]] = field(default_factory=dict)
    holds: Callable[[], bool] = lambda: True
    is_order: bool = False


Ask = Callable[[Tenant, Any], Asked]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of effect; `waits` says whether it takes time after the call was answered."""

    name: str
    ask: Ask
    waits: bool = True


def command(kind: str, operation: str, *, effect: str, **told: Any) -> Asked:
    """A command; fields of the body are given as `fields`."""
    message_id, fields = uuid.uuid4().hex, told.pop("fields")
    return Asked(
        kind,
        message_id,
        lambda requester: requester.command(operation, message_id=message_id, **fields),
        effect,
        **told,
    )


def order(kind: str, order_id: str, body: Mapping[str, Any], *, effect: str, **told: Any) -> Asked:
    """An order."""
    message_id, text = uuid.uuid4().hex, json.dumps({"tenant_id": "tenant-a", **body})
    key = f"order.{body.get('orderType', 'softDown')}".strip()
    finals = {
        ("order", order_id): "succeeded" if told["code"] == 200 else "failed",
        **told.pop("finals"),
    }
    return Asked(
        kind,
        message_id,
        lambda requester: requester.order(text, key, message_id=message_id),
        effect,
        finals=finals,
        is_order=True,
        **told,
    )


# Servers.


def power(kind: str, body: Mapping[str, Any], end: str, *, stopped: bool = False) -> Ask:
    def ask(tenant: Tenant, _: Any) -> Asked:
        server_id = tenant.make_server(name=kind, disk=None)
        before = ["create"]
        if stopped:
            tenant.stop(server_id)
            before.append("stop")
        action = next(iter(body))
        return command(
            kind,
            "server.action",
            fields={"server_id": server_id, "body": body},
            effect=f"^{action}:{server_id}",
            code=200,
            finals={("server", server_id): end},
            calls=(f"nova POST .*/{server_id}/action {action}$",),
            actions={server_id: [*before, action.removeprefix("os-")]},
        )

    return ask


def batch(tenant: Tenant, _: Any) -> Asked:
    """Held at the third server."""
    ids = [tenant.make_server(name=f"batch-{number}", disk=None) for number in range(4)]
    body = {"reboot": {"type": "HARD", "servers": [{"id": one} for one in ids]}}
    return command(
        "batch",
        "server.batch_action",
        fields={"body": body},
        effect=f"^reboot:{ids[2]}",
        code=200,
        finals={("server", one): "ACTIVE" for one in ids},
        calls=tuple(f"nova POST .*/{one}/action reboot$" for one in ids),
        actions={one: ["create", "reboot"] for one in ids},
    )


def tags(tenant: Tenant, _: Any) -> Asked:
    server_id = tenant.make_server(name="tags", disk=None)
    return command(
        "tags",
        "server.tags.update",
        fields={"server_id": server_id, "tags": "web,prod"},
        effect="^tags:",
        code=200,
        finals={},
        calls=(f"nova PUT .*/{server_id}/tags tags$",),
        holds=lambda: tenant.server(server_id)["tags"] in (["web", "prod"], ["prod", "web"]),
    )


# Images.


def create_image(tenant: Tenant, _: Any) -> Asked:
    server_id, name = tenant.make_server(name="image-of", disk=None), f"image-{uuid.uuid4().hex}"

    def is_one() -> bool:
        found = tenant.images(name)
        for one in found:
            tenant.later("image", f"/images/{one['id']}")
        return [one["status"] for one in found] == ["active"]

    return command(
        "createImage",
        "server.action",
        effect="^createImage:",
        code=201,
        finals={("image", "*"): "active"},
        fields={
            "server_id": server_id,
            "body": {"createImage": {"name": name, "description": "x"}},
        },
        calls=(f"nova POST .*/{server_id}/action createImage$",),
        actions={server_id: ["create", "createImage"]},
        holds=is_one,
    )


def delete_image(tenant: Tenant, _: Any) -> Asked:
    image_id = tenant.make_image("to-be-deleted")
    return command(
        "image.delete",
        "image.delete",
        fields={"image_id": image_id},
        effect="^delete:",
        code=200,
        finals={("image", image_id): "deleted"},
        calls=(f"glance DELETE .*/images/{image_id}$",),
        holds=lambda: tenant.images("to-be-deleted", image_id) == [],
    )


def delete_images(tenant: Tenant, _: Any) -> Asked:
    ids = [tenant.make_image(f"batch-deleted-{number}") for number in range(3)]
    return command(
        "image.batch_delete",
        "image.batch_delete",
        fields={"body": {"images": [{"id": one} for one in ids]}},
        effect=f"^delete:{ids[1]}",
        code=200,
        finals={("image", one): "deleted" for one in ids},
        calls=tuple(f"glance DELETE .*/images/{one}$" for one in ids),
    )


def update_image(tenant: Tenant, _: Any) -> Asked:
    image_id, name = tenant.make_image("to-be-changed"), f"changed-{uuid.uuid4().hex}"
    tenant.later("image", f"/images/{image_id}")
    patch = [
        {"op": "replace", "path": "/name", "value": name},
        {"op": "add", "path": "/system", "value": "centos7.1"},
    ]
    return command(
        "image.update",
        "image.update",
        fields={"image_id": image_id, "body": patch},
        effect="^update:",
        code=200,
        finals={},
        calls=(f"glance PATCH .*/images/{image_id}$",),
        holds=lambda: len(tenant.images(name)) == 1,
    )


# Orders.


def change(kind: str, effect: str) -> Ask:
    """The document's order, held at one of its effects."""

    def ask(tenant: Tenant, _: Any) -> Asked:
        server_id, order_id = tenant.make_server(name=kind, disk=10), new_order_id()
        (volume,) = tenant.volumes(server_id)
        body = json.loads(change_configure(server_id, tenant.image, order_id=order_id))
        return order(
            kind,
            order_id,
            body,
            effect=f"^{effect}:",
            code=200,
            finals={("server", server_id): "ACTIVE"},
            calls=(
                *(f"nova POST .*/{server_id}/action {one}$" for one in ("resize", "confirmResize")),
                f"cinder POST .*/{volume['id']}/action os-extend$",
            ),
            actions={server_id: ["create", "resize", "confirmResize"]},
            holds=lambda: (
                [one["size"] for one in tenant.volumes(server_id)] == [60]
                and tenant.server(server_id)["metadata"].get("order_id") == order_id
            ),
        )

    return ask


def revert(tenant: Tenant, cloud: Any) -> Asked:
    """The document's order, whose disk does not grow."""
    server_id, order_id = tenant.make_server(name="revert", disk=10), new_order_id()
    (volume,) = tenant.volumes(server_id)
    cloud.fault("volume.extend_volume", match=volume["id"], error="no space")
    body = json.loads(change_configure(server_id, tenant.image, order_id=order_id))
    return order(
        "revert",
        order_id,
        body,
        effect="^revert:",
        code="101.001040",
        finals={("server", server_id): "ACTIVE"},
        calls=(
            *(f"nova POST .*/{server_id}/action {one}$" for one in ("resize", "revertResize")),
            f"cinder POST .*/{volume['id']}/action os-extend$",
        ),
        actions={server_id: ["create", "resize", "revertResize"]},
        holds=lambda: (
            [(one["size"], one["status"]) for one in tenant.volumes(server_id)] == [(10, "in-use")]
            and tenant.server(server_id)["flavor"]["original_name"] == "S1.small.1"
        ),
    )


def renewal(kind: str, effect: str) -> Ask:
    """The renewal of a server that softDown had stopped."""

    def ask(tenant: Tenant, _: Any) -> Asked:
        metadata = {"next_fee_time": "2099-01-31 00:00:00", "soft_down": "stopped"}
        server_id = tenant.make_server(name=kind, disk=None, metadata=metadata)
        tenant.stop(server_id)
        body = paid("renew", server_id, duration="1", durationUnit="M")

        def is_paid() -> bool:
            metadata = tenant.server(server_id)["metadata"]
            return (
                metadata["next_fee_time"] == "2099-02-28 00:00:00" and "soft_down" not in metadata
            )

        return order(
            kind,
            body["orderId"],
            body,
            effect=f"^{effect}:",
            code=200,
            finals={("server", server_id): "ACTIVE"},
            calls=(
                f"nova POST .*/{server_id}/metadata metadata$",
                f"nova POST .*/{server_id}/action os-start$",
                f"nova DELETE .*/{server_id}/metadata/soft_down$",
            ),
            actions={server_id: ["create", "stop", "start"]},
            holds=is_paid,
        )

    return ask


def renewal_in_error(effect: str) -> Ask:
    """The renewal of a server in ERROR, which is declared well for a moment."""

    def ask(tenant: Tenant, cloud: Any) -> Asked:
        server_id = tenant.make_server(name=f"renew-{effect}", disk=None, metadata={})
        admin = Tenant(cloud.clouds_yaml, "admin")
        admin.act(server_id, {"os-resetState": {"state": "error"}})
        admin.close()
        body = paid("renew", server_id, duration="1", durationUnit="M")

        def is_paid_and_in_error() -> bool:
            server = tenant.server(server_id)
            return server["status"] == "ERROR" and "next_fee_time" in server["metadata"]

        return order(
            f"renew: {effect}",
            body["orderId"],
            body,
            effect=f"^{effect}:",
            code=200,
            finals={},
            calls=(f"nova POST .*/{server_id}/metadata metadata$",),
            holds=is_paid_and_in_error,
        )

    return ask


def taken_down(kind: str, operate: str, effect: str) -> Ask:
    """A softDown of a server, and of another one that is so already."""

    def ask(tenant: Tenant, _: Any) -> Asked:
        stops = operate == "stopServer"
        metadata = {} if stops else {"soft_down": "stopped"}
        server_id = tenant.make_server(name=kind, disk=None, metadata=metadata)
        if not stops:
            tenant.stop(server_id)
        body = soft_down((server_id, operate), (str(uuid.uuid4()), operate))
        power, end = ("os-stop", "SHUTOFF") if stops else ("os-start", "ACTIVE")
        metadata_call = (
            "POST .*/{}/metadata metadata$" if stops else "DELETE .*/{}/metadata/soft_down$"
        )
        return order(
            kind,
            body["flowId"],
            body,
            effect=f"^{effect}:",
            code=200,
            finals={("server", server_id): end},
            calls=(
                f"nova POST .*/{server_id}/action {power}$",
                f"nova {metadata_call.format(server_id)}",
            ),
            actions={server_id: ["create", "stop"] if stops else ["create", "stop", "start"]},
            holds=lambda: (
                tenant.server(server_id)["metadata"].get("soft_down")
                == ("stopped" if stops else None)
            ),
        )

    return ask


def new_servers(kind: str, effect: str, count: int, *, in_subnet: bool = False) -> Ask:
    """An order for so many servers, each with a data disk."""

    def ask(tenant: Tenant, _: Any) -> Asked:
        name = f"{kind.replace(' ', '-')}-{uuid.uuid4().hex[:6]}"
        chosen = {"instanceName": name} | ({"subnetId": tenant.subnet()} if in_subnet else {})
        body = new(tenant, count=count, chosen=chosen)
        names = [f"{name}-{number}" for number in range(1, count + 1)]

        def are_all() -> bool:
            servers, disks = made_for(tenant, body["orderId"])
            for server_id in servers:
                tenant.adopt(server_id)
            parts = sorted(one["metadata"]["ecs_part"] for one in disks)
            paid_for = all("next_fee_time" in one["metadata"] for one in servers.values())
            return (
                sorted(one["name"] for one in servers.values()) == sorted(names)
                and {one["status"] for one in servers.values()} == {"ACTIVE"}
                and parts
                == sorted(f"{number}.{disk}" for number in range(1, count + 1) for disk in range(2))
                and {one["status"] for one in disks} == {"in-use"}
                and paid_for
                and len([one for one in tenant.ports() if one["device_id"] in servers]) == count
                and not [
                    one for one in tenant.ports() if one["name"] in names and not one["device_id"]
                ]
            )

        return order(
            kind,
            body["orderId"],
            body,
            effect=f"^{effect}",
            code=200,
            calls=(),
            holds=are_all,
            finals={("server", f"*{number}"): "ACTIVE" for number in range(count)},
        )

    return ask


def taken_away(tenant: Tenant, cloud: Any) -> Asked:
    """An order for two servers, of which one cannot be built; held as they are taken away again."""
    name = f"taken-away-{uuid.uuid4().hex[:6]}"
    cloud.fault("virt.spawn", match=f"{name}-2", error="no disk")
    body = new(tenant, count=2, chosen={"instanceName": name, "subnetId": tenant.subnet()})

    def is_none() -> bool:
        # By their names: the real Nova forgets the metadata of what is gone.
        ever = [one for one in tenant.servers_ever() if one["name"].startswith(name)]
        _, disks = made_for(tenant, body["orderId"])
        ports = [one for one in tenant.ports() if one["name"].startswith(name)]
        return {one["status"] for one in ever} == {"DELETED"} and not disks and not ports

    return order(
        "taken away",
        body["orderId"],
        body,
        effect="^delete:",
        code="101.001040",
        calls=(),
        holds=is_none,
        finals={("server", "*1"): "DELETED", ("server", "*2"): "DELETED"},
    )


def unsubscribe(kind: str, effect: str, *, unpaid: bool = False, locked: bool = True) -> Ask:
    """A server with two disks and a floating IP goes: by an order, or because nobody pays."""

    def ask(tenant: Tenant, _: Any) -> Asked:
        server_id, floating_ip = tenant.make_server_with_floating_ip(
            name=kind.replace(" ", "-"), disk=2
        )
        disks = [one["id"] for one in tenant.volumes(server_id)]
        if locked:
            tenant.act(server_id, {"lock": None})
        body = soft_down((server_id, "delete")) if unpaid else paid("unsubscribe", server_id)
        name = body["flowId" if unpaid else "orderId"]

        def is_gone() -> bool:
            return (
                not [one for one in disks if tenant.has_volume(one)]
                and not [one for one in tenant.ports() if one["device_id"] == server_id]
                and tenant.floating_ip(floating_ip)["port_id"] is None
            )

        return order(
            kind,
            name,
            body,
            effect=f"^{effect}",
            code=200,
            finals={("server", server_id): "DELETED"},
            calls=(
                # Refused while it is locked, carried out once.
                f"nova DELETE .*/servers/{server_id}$",
                *([f"nova POST .*/{server_id}/action unlock$"] if locked else []),
                f"neutron PUT .*/floatingips/{floating_ip} floatingip$",
            ),
            holds=is_gone,
        )

    return ask


def made_for(tenant: Tenant, order_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The servers that were ever made for an order, by id, and the volumes that there are of it."""
    servers = {
        one["id"]: one
        for one in tenant.servers_ever()
        if one["metadata"].get("order_id") == order_id
    }
    return servers, [
        one for one in tenant.all_volumes() if one["metadata"].get("order_id") == order_id
    ]


KINDS = (
    Kind("start", power("start", {"os-start": None}, "ACTIVE", stopped=True)),
    Kind("stop", power("stop", {"os-stop": None}, "SHUTOFF")),
    Kind("reboot", power("reboot", {"reboot": {"type": "HARD"}}, "ACTIVE")),
    Kind("batch", batch),
    Kind("tags", tags, waits=False),
    Kind("createImage", create_image),
    Kind("image.delete", delete_image, waits=False),
    Kind("image.batch_delete", delete_images, waits=False),
    Kind("image.update", update_image, waits=False),
    Kind("resize", change("resize", "resize")),
    Kind("extend", change("extend", "extend")),
    Kind("confirm", change("confirm", "confirm")),
    Kind("fee data", change("metadata", "metadata"), waits=False),
    Kind("revert", revert),
    Kind("renew", renewal("renew", "renew"), waits=False),
    Kind("renew: start", renewal("renew-start", "os-start")),
    Kind("renew: mark", renewal("renew-mark", "unmark"), waits=False),
    Kind("renew: well", renewal_in_error("reset"), waits=False),
    Kind("renew: error again", renewal_in_error("error"), waits=False),
    Kind("softDown: stop", taken_down("soft-stop", "stopServer", "os-stop")),
    Kind("softDown: mark", taken_down("soft-mark", "stopServer", "mark"), waits=False),
    Kind("softDown: resume", taken_down("soft-resume", "resumeServer", "os-start")),
    Kind("new volume", new_servers("new volume", "volume:3.1", 5)),
    Kind("new port", new_servers("new port", "port:2", 2, in_subnet=True), waits=False),
    Kind("new server", new_servers("new server", "create:3", 5)),
    Kind("new fee data", new_servers("new fee data", "metadata:", 2), waits=False),
    Kind("taken away", taken_away),
    Kind("unsubscribe", unsubscribe("unsubscribe", "delete:")),
    Kind("unlock", unsubscribe("unlock", "unlock:"), waits=False),
    Kind("softDown: delete", unsubscribe("soft-delete", "delete:", unpaid=True)),
    Kind("softDown: address", unsubscribe("soft-address", "release:", unpaid=True), waits=False),
    Kind("floating IP", unsubscribe("floating IP", "release:"), waits=False),
)

#: One of each sort, where all would tell no more.
FEW = tuple(
    kind
    for kind in KINDS
    if kind.name
    in (
        "start",
        "batch",
        "tags",
        "createImage",
        "image.delete",
        "image.update",
        "extend",
        "revert",
        "renew: start",
        "new server",
        "unsubscribe",
    )
)


def ask_all(kinds: Iterable[Kind], tenant: Tenant, cloud: Any) -> list[Asked]:
    """A request of each kind, on things of its own; made, not sent."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda kind: kind.ask(tenant, cloud), kinds))
