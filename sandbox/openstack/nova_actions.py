"""Nova's actions on a server: their preconditions, their answers, and the changes that follow in
their own time.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.openstack import quotas
from sandbox.openstack.building import begin_forced_deletion, fail, too_big
from sandbox.openstack.state import Action, Event, Flavor, Server, World
from sandbox.openstack.wire import ApiError, Caller

#: Statuses of a volume in which Cinder lets its own server attach it a second time, as a resize
#: does.
_ATTACHABLE = ("available", "downloading", "in-use", "reserved")
#: The tasks in the middle of which Nova takes a hard reboot.
_HARD_REBOOT_TASKS = (
    "rebooting",
    "reboot_pending",
    "reboot_started",
    "resuming",
    "rebooting_hard",
    "unpausing",
    "pausing",
    "suspending",
)


class ServerActions:
    """The actions of `POST /servers/{id}/action`; each returns the status that it is answered with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, Callable[[Server, Any, Caller, str], int]] = {
            "os-start": self._start,
            "os-stop": self._stop,
            "reboot": self._reboot,
            "resize": self._resize,
            "confirmResize": self._confirm,
            "revertResize": self._revert,
            "lock": self._lock,
            "unlock": self._unlock,
            "os-resetState": self._reset,
            "forceDelete": self._force_delete,
        }

    def act(self, server: Server, body: dict[str, Any], who: Caller, request_id: str) -> int:
        """Begin the action that the body names."""
        if len(body) != 1:
            raise ApiError(400, "Malformed request body")
        name, argument = next(iter(body.items()))
        if name not in self._known:
            raise ApiError(400, f"There is no such action: {name}.")
        return self._known[name](server, argument, who, request_id)

    def _start(self, server: Server, _: Any, who: Caller, request_id: str) -> int:
        self._check(server, who, "start", ("stopped",))
        action = self._log(server, "start", who, request_id, task="powering-on")
        self._world.run(self._in_event(action, "compute_start_instance", server, self._started))
        return 202

    async def _started(self, server: Server, event: Event) -> None:
        await self._world.lasts(0.5)
        if await self._fails("virt.power_on", server):
            event.failed = True
            server.become()
            return
        server.become("active")

    def _stop(self, server: Server, _: Any, who: Caller, request_id: str) -> int:
        self._check(server, who, "stop", ("active", "error"))
        action = self._log(server, "stop", who, request_id, task="powering-off")
        self._world.run(self._in_event(action, "compute_stop_instance", server, self._stopped))
        return 202

    async def _stopped(self, server: Server, event: Event) -> None:
        await self._world.lasts(0.5)
        if await self._fails("virt.power_off", server):
            event.failed = True
            server.become()
            return
        server.become("stopped")

    def _reboot(self, server: Server, argument: Any, who: Caller, request_id: str) -> int:
        kind = str((argument or {}).get("type", "")).upper()
        if kind not in ("SOFT", "HARD"):
            raise ApiError(
                400,
                f"Invalid input for field/attribute type. Value: {kind}. it is not one of the enum",
            )
        hard = kind == "HARD"
        states = ("active", *(("stopped", "paused", "suspended", "error") if hard else ()))
        self._check(server, who, "reboot", states, _HARD_REBOOT_TASKS if hard else ())
        action = self._log(
            server, "reboot", who, request_id, task="rebooting_hard" if hard else "rebooting"
        )
        course = self._rebooted_hard if hard else self._rebooted_softly
        self._world.run(self._in_event(action, "compute_reboot_instance", server, course))
        return 202

    async def _rebooted_softly(self, server: Server, event: Event) -> None:
        await self._rebooted(server, event, "")

    async def _rebooted_hard(self, server: Server, event: Event) -> None:
        await self._rebooted(server, event, "_hard")

    async def _rebooted(self, server: Server, event: Event, end: str) -> None:
        await self._world.lasts(0.4)
        # Nova's host reboots a server once at a time; what was overtaken meanwhile touches nothing
        # any more.
        async with server.on_its_host:
            for before, task in (
                ("rebooting", "reboot_pending"),
                ("reboot_pending", "reboot_started"),
            ):
                if server.task_state != before + end:
                    event.failed = True
                    return
                server.become(task_state=task + end)
                await self._world.lasts(0.4)
            event.failed = await self._fails("virt.reboot", server)
            server.become("active")

    def _resize(self, server: Server, argument: Any, who: Caller, request_id: str) -> int:
        wanted = str((argument or {}).get("flavorRef"))
        flavor = self._world.flavors.get(wanted)
        if flavor is None:
            raise ApiError(400, f"Flavor {wanted} could not be found.")
        self._check(server, who, "resize", ("active", "stopped"))
        if flavor is server.flavor:
            raise ApiError(400, "When resizing, instances must change flavor!")
        self._check_quota(server, flavor)
        action = self._log(server, "resize", who, request_id, task="resize_prep")
        self._world.run(self._resized(server, flavor, action))
        return 202

    async def _resized(self, server: Server, flavor: Flavor, action: Action) -> None:
        with (
            action.event("cold_migrate") as asking,
            action.event("conductor_migrate_server") as scheduling,
        ):
            await self._world.lasts(0.3)
            asking.failed = scheduling.failed = too_big(flavor)
        if too_big(flavor):
            server.become()
            return
        for event, task in (
            ("compute_prep_resize", "resize_migrating"),
            ("compute_resize_instance", "resize_migrated"),
        ):
            with action.event(event) as moving:
                await self._world.lasts(0.4)
                held = task == "resize_migrated" and _held_volume(server)
                moving.failed = bool(held)
            if held:
                await fail(self._world, server, held)
                return
            server.become(task_state=task)
        with action.event("compute_finish_resize") as finishing:
            server.become(task_state="resize_finish")
            await self._world.lasts(0.4)
            server.old_flavor, server.old_vm_state, server.flavor = (
                server.flavor,
                server.vm_state,
                flavor,
            )
            fault = await self._error("virt.finish_migration", server)
            finishing.failed = fault is not None
        if fault is None:
            server.become("resized")
        else:
            await fail(self._world, server, fault)

    def _confirm(self, server: Server, _: Any, who: Caller, request_id: str) -> int:
        self._check(server, who, "confirmResize", ("resized",))
        # Without a task: so it is in Nova, whose client sees VERIFY_RESIZE until it is over.
        action = self._log(server, "confirmResize", who, request_id, task=None)
        self._world.run(self._in_event(action, "compute_confirm_resize", server, self._confirmed))
        return 204

    async def _confirmed(self, server: Server, event: Event) -> None:
        await self._world.lasts(0.5)
        if await self._fails("virt.confirm_migration", server):
            event.failed = True
            server.become("error")
            return
        server.become(server.old_vm_state)

    def _revert(self, server: Server, _: Any, who: Caller, request_id: str) -> int:
        self._check(server, who, "revertResize", ("resized",))
        action = self._log(server, "revertResize", who, request_id, task="resize_reverting")
        self._world.run(self._reverted(server, action))
        return 202

    async def _reverted(self, server: Server, action: Action) -> None:
        for event in ("compute_revert_resize", "compute_finish_revert_resize"):
            with action.event(event):
                await self._world.lasts(0.4)
        server.flavor = server.old_flavor or server.flavor
        server.become(server.old_vm_state)

    def _lock(self, server: Server, _argument: Any, who: Caller, _request_id: str) -> int:
        server.locked, server.locked_by_admin = True, who.is_admin
        return 202

    def _unlock(self, server: Server, _argument: Any, who: Caller, _request_id: str) -> int:
        if server.locked and server.locked_by_admin and not who.is_admin:
            raise ApiError(
                403,
                "Policy doesn't allow os_compute_api:os-lock-server:unlock:unlock_override to be performed.",
            )
        server.locked = False
        return 202

    def _force_delete(self, server: Server, _argument: Any, who: Caller, _request_id: str) -> int:
        begin_forced_deletion(self._world, server, who)
        return 202

    def _reset(self, server: Server, argument: Any, who: Caller, _: str) -> int:
        if not who.is_admin:
            raise ApiError(
                403,
                "Policy doesn't allow os_compute_api:os-admin-actions:reset_state to be performed.",
            )
        server.fault = None
        server.become(argument["state"])
        return 202

    def _check(
        self,
        server: Server,
        who: Caller,
        what: str,
        states: tuple[str, ...],
        tasks: tuple[str, ...] = (),
    ) -> None:
        if server.locked and not who.is_admin:
            raise ApiError(409, f"Instance {server.id} is locked")
        wrong = None
        if server.vm_state not in states:
            wrong = f"vm_state {server.vm_state}"
        elif server.task_state is not None and server.task_state not in tasks:
            wrong = f"task_state {server.task_state}"
        if wrong:
            raise ApiError(409, f"Cannot '{what}' instance {server.id} while it is in {wrong}")

    def _check_quota(self, server: Server, flavor: Flavor) -> None:
        more = {"cores": flavor.vcpus - server.flavor.vcpus, "ram": flavor.ram - server.flavor.ram}
        quotas.check_compute(self._world, server.project, more)

    def _log(
        self, server: Server, name: str, who: Caller, request_id: str, task: str | None
    ) -> Action:
        action = server.log(name, request_id, who.user.id)
        server.become(task_state=task)
        return action

    async def _in_event(
        self,
        action: Action,
        name: str,
        server: Server,
        course: Callable[[Server, Event], Awaitable[None]],
    ) -> None:
        with action.event(name) as event:
            await course(server, event)

    async def _fails(self, point: str, server: Server) -> bool:
        return await self._error(point, server) is not None

    async def _error(self, point: str, server: Server) -> str | None:
        rule = await self._world.faults.strike(point, f"{server.id} {server.name}")
        return rule.error if rule is not None else None


def _held_volume(server: Server) -> str | None:
    """Why an attachment cannot be moved, in Cinder's words; None where all can."""
    for one in server.volumes:
        if "error" in one.status:
            return (
                "Invalid input received: Invalid volume: Volume attachments can not be created if the volume is in an "
                f"error state. The Volume {one.id} currently has a status of: {one.status}  (HTTP 400)"
            )
        if one.status not in _ATTACHABLE:
            return (
                f"Invalid input received: Invalid volume: Volume {one.id} status must be available or downloading to "
                f"reserve, but the current status is {one.status}. (HTTP 400)"
            )
    return None
