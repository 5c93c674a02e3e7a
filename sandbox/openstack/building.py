"""Building of a server with its disks and ports, and its deletion."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from sandbox.openstack import quotas, snapshots
from sandbox.openstack.state import ZONE, Action, Flavor, Server, Volume, World, new_id
from sandbox.openstack.texts import check_nova_items, check_nova_rows, check_nova_tags
from sandbox.openstack.wire import ApiError, Caller

#: The most CPUs and MiB that a host has.
HOST_CPUS, HOST_RAM = 1000, 8_000_000
_NO_HOST = "No valid host was found. "
_RETRIES = (
    "Exceeded maximum number of retries. Exhausted all hosts available for retrying "
    "build failures for instance {}."
)
_DEVICES = "abcdefghijklmnopqrstuvwxyz"


def too_big(flavor: Flavor) -> bool:
    """Tell whether no host has room for it."""
    return flavor.vcpus > HOST_CPUS or flavor.ram > HOST_RAM


def new_server(world: World, wanted: dict[str, Any], who: Caller, request_id: str) -> Server:
    """A server that begins to be built; `ApiError` where Nova would not begin."""
    flavor = _checked_flavor(world, wanted)
    now = datetime.now(UTC)
    server = Server(
        new_id(),
        wanted.get("name", ""),
        who.project,
        who.user,
        flavor,
        world.images.get(wanted.get("imageRef") or ""),
        now,
        now,
        metadata=dict(wanted.get("metadata") or {}),
        tags=list(wanted.get("tags") or ()),
        key_name=wanted.get("key_name"),
        user_data=wanted.get("user_data"),
        zone=wanted.get("availability_zone") or ZONE,
    )
    check_nova_items(server.metadata)
    if server.key_name is not None and (who.user.id, server.key_name) not in world.keys:
        raise ApiError(400, "Invalid key_name provided.")
    for group in wanted.get("security_groups") or ():
        _check_group(world, who, group["name"])
    zone = wanted.get("availability_zone")
    if zone is not None and not world.zones.get(zone):
        raise ApiError(400, "The requested availability zone is not available")
    wishes = wanted.get("block_device_mapping_v2") or snapshots.wishes_of(server.image)
    for wish in wishes:
        _check_volume(world, who, wish)
    networks = wanted.get("networks")
    listed = networks if isinstance(networks, list) else []
    for one in listed:
        _check_network(world, one)
    quotas.check_metadata(world, who.project, wanted.get("metadata") or {})
    _check_ports(world, who, [one for one in listed if "port" not in one])
    quotas.check_compute(
        world, who.project, {"instances": 1, "cores": flavor.vcpus, "ram": flavor.ram}
    )
    world.servers[server.id] = server
    server.actions.append(Action("create", request_id, who.user.id, now))
    if not _can_be_written(server):
        # The conductor fails at the cell's database, and nobody tells the server so.
        return server
    for number, wish in enumerate(wishes):
        server.volumes.append(_new_volume(world, server, wish, f"/dev/sd{_DEVICES[number]}"))
    world.run(_build(world, server, listed))
    return server


def _can_be_written(server: Server) -> bool:
    try:
        check_nova_tags(server.tags)
        check_nova_rows(server.metadata.values())
    except ApiError:
        return False
    return True


def begin_deletion(world: World, server: Server, who: Caller) -> None:
    """Have a server go."""
    if server.locked and not who.is_admin:
        raise ApiError(409, f"Instance {server.id} is locked")
    if world.reclaim_interval > 0 and server.vm_state != "soft-delete":
        server.become(task_state="soft-deleting")
        world.run(_soft_delete(world, server))
    else:
        begin_forced_deletion(world, server, who)


def begin_forced_deletion(world: World, server: Server, who: Caller) -> None:
    """Have a server go at once, also one that is kept for a while."""
    if server.locked and not who.is_admin:
        raise ApiError(409, f"Instance {server.id} is locked")
    server.become(task_state="deleting")
    world.run(_delete(world, server))


def attach_port(world: World, server: Server, network_id: str) -> dict[str, Any]:
    """A port that Nova makes for the server."""
    port = world.nets.add_port(server.project.id, network_id, server.id, "compute:nova")
    server.own_ports.add(port["id"])
    return port


def attach_volume(world: World, server: Server, volume: Volume) -> None:
    """Give a server one more volume, which stays when it goes; `ApiError` where another has it for
    itself.
    """
    if volume.server_id is not None:
        if not volume.shared:
            raise ApiError(
                400,
                f"Invalid volume: volume {volume.id} is already attached to instances: {server.id}",
            )
        volume.others.append(server.id)
        server.volumes.append(volume)
        return
    taken = {one.device for one in server.volumes}
    volume.device = next(f"/dev/sd{one}" for one in _DEVICES if f"/dev/sd{one}" not in taken)
    volume.server_id, volume.goes_with_server = server.id, False
    server.volumes.append(volume)
    volume.become("in-use")


def _checked_flavor(world: World, wanted: dict[str, Any]) -> Flavor:
    flavor = world.flavors.get(wanted.get("flavorRef", ""))
    if flavor is None:
        raise ApiError(400, f"Flavor {wanted.get('flavorRef')} could not be found.")
    return flavor


def _check_group(world: World, who: Caller, named: str) -> None:
    groups = world.nets.groups_of(who.project.id)
    if all(named not in (one["id"], one["name"]) for one in groups):
        raise ApiError(400, f"Unable to find security_group with name or id '{named}'")


def _check_network(world: World, wish: dict[str, Any]) -> None:
    if "port" in wish and wish["port"] not in world.nets.ports:
        raise ApiError(400, f"Port {wish['port']} could not be found.")
    if "uuid" in wish and wish["uuid"] not in world.nets.networks:
        raise ApiError(400, f"Network {wish['uuid']} could not be found.")


def _check_ports(world: World, who: Caller, wanted: list[dict[str, Any]]) -> None:
    """Nova asks Neutron whether there is room for the ports that it would make."""
    quota = quotas.port_quota(world, who.project)
    if wanted and 0 <= quota["limit"] < quota["used"] + len(wanted):
        raise ApiError(403, "Maximum number of ports exceeded")


def _check_volume(world: World, who: Caller, wish: dict[str, Any]) -> None:
    if wish.get("source_type") != "volume":
        return
    volume = world.volumes.get(wish["uuid"])
    if volume is None or volume.project is not who.project:
        raise ApiError(
            400, f"Block Device Mapping is Invalid: failed to get volume {wish['uuid']}."
        )
    if volume.status != "available":
        raise ApiError(
            400,
            f"Invalid volume: Invalid input received: Invalid volume: Volume {volume.id} status must be available or "
            f"downloading to reserve, but the current status is {volume.status}. (HTTP 400)",
        )


def _new_volume(world: World, server: Server, wish: dict[str, Any], device: str) -> Volume:
    if wish.get("source_type") == "volume":
        volume = world.volumes[wish["uuid"]]
    elif wish.get("source_type") == "snapshot":
        snapshot = world.snapshots[wish["snapshot_id"]]
        origin = snapshot.volume
        volume = Volume(
            new_id(),
            "",
            server.project,
            wish["volume_size"],
            origin.type,
            datetime.now(UTC),
            bootable=origin.bootable,
            image=origin.image,
            snapshot_id=snapshot.id,
        )
        world.volumes[volume.id] = volume
    else:
        image = world.images.get(wish.get("uuid", ""))
        name = "" if image is not None else f"{server.id}-blank-vol"
        volume = Volume(
            new_id(),
            name,
            server.project,
            wish["volume_size"],
            wish.get("volume_type") or "__DEFAULT__",
            datetime.now(UTC),
            bootable=image is not None,
            image=image,
        )
        world.volumes[volume.id] = volume
    volume.device, volume.goes_with_server = device, bool(wish.get("delete_on_termination"))
    volume.become("reserved")
    return volume


async def _build(world: World, server: Server, networks: list[dict[str, Any]]) -> None:
    with server.actions[0].event("compute__do_build_and_run_instance") as event:
        await world.lasts(0.1)
        has_host = world.zones[server.zone] and not too_big(server.flavor)
        fault = _NO_HOST if not has_host else await _build_on_host(world, server, networks)
        event.failed = fault is not None
    if server.vm_state == "deleted" or server.task_state == "deleting":
        return  # it goes as it came
    if fault is None:
        server.become("active")
    else:
        await fail(world, server, fault)


async def fail(world: World, server: Server, fault: str | None) -> None:
    """Leave a server in ERROR; why is written down only after that."""
    server.fault = None
    server.become("error")
    await world.lasts(0.3)
    await world.faults.strike("nova.write_fault", f"{server.id} {server.name}")
    server.fault = fault


async def _build_on_host(
    world: World, server: Server, networks: list[dict[str, Any]]
) -> str | None:
    """Why it could not be built; then what it had taken is given back, and only its volumes are
    still named.
    """
    server.become(task_state="spawning")
    for one in networks:
        if "port" in one:
            world.nets.ports[one["port"]].update(
                device_id=server.id, device_owner="compute:nova", status="ACTIVE"
            )
        else:
            attach_port(world, server, one["uuid"])
    for volume in server.volumes:
        volume.server_id = server.id
        volume.become("in-use")
    await world.lasts(0.4)
    if await world.faults.strike("virt.spawn", f"{server.id} {server.name}") is None:
        return None
    _let_go_of_ports(world, server)
    for volume in server.volumes:
        volume.server_id = None
        volume.become("available")
    return _RETRIES.format(server.id)


async def _soft_delete(world: World, server: Server) -> None:
    """Switched off, and kept with all that it has until it is reclaimed."""
    await world.lasts(0.2)
    server.become("soft-delete")
    await asyncio.sleep(world.reclaim_interval)
    if server.vm_state == "soft-delete" and server.task_state is None:
        await _delete(world, server)


async def _delete(world: World, server: Server) -> None:
    if server.vm_state == "resized":
        # Confirmed first; by that Nova forgets for a moment what it is about.
        await world.lasts(0.2)
        server.become("active")
    await world.lasts(0.2)
    rule = await world.faults.strike("virt.destroy", f"{server.id} {server.name}")
    if rule is not None:
        await fail(world, server, rule.error)
        return
    for volume in server.volumes:
        _let_go_of_volume(world, server, volume)
    _let_go_of_ports(world, server)
    # It can be seen a moment longer.
    server.become("deleted")
    await world.lasts(0.2)
    server.deleted = True


def _let_go_of_volume(world: World, server: Server, volume: Volume) -> None:
    if server.id in volume.others:
        volume.others.remove(server.id)
    elif volume.others:
        # Nova does not delete what another server has, and its answer does not say so.
        volume.server_id, volume.goes_with_server = volume.others.pop(0), False
    else:
        volume.server_id = None
        volume.become("available")
        if volume.goes_with_server and not (volume.group_id or snapshots.of_volume(world, volume)):
            world.volumes.pop(volume.id, None)


def _let_go_of_ports(world: World, server: Server) -> None:
    """The ports that Nova made go; those that it was given are free again."""
    for port in [one for one in world.nets.ports.values() if one["device_id"] == server.id]:
        if port["id"] in server.own_ports:
            world.nets.remove(port["id"])
        else:
            port.update(device_id="", device_owner="", status="DOWN")
    server.own_ports.clear()
