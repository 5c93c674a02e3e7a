"""Steps of orders as data, and what they are built of: looks at the cloud, waits, usual steps."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from handlers.context import ProjectContext
from handlers.effects.backoff import Deadline
from handlers.effects.ledger import EffectId
from handlers.effects.once import Landed, Marked
from handlers.openstack import nova
from handlers.openstack.cinder import Volume
from handlers.openstack.errors import CloudRefusal, Conflict, NotFound
from handlers.openstack.nova import ERROR, METADATA_STATES, InstanceAction, Server
from handlers.openstack.sessions import Reply
from handlers.openstack.watch import Poller, Watched
from handlers.orders.progress import OrderProgress
from messages.codes import Code
from messages.commands import Force, Power
from messages.errors import Refused, Transient
from messages.record import record
from messages.updates import OrderStatus

W = TypeVar("W", bound=Watched)

#: Seconds by which Nova's action log and a server's fault may lag behind the server, and between
#: two looks at them.
_LOG_LATE, _LOG_EVERY = 5.0, 0.2
#: A server's status when it has been started or stopped, Nova's name of the action, and the order's
#: status meanwhile.
_POWERED = {
    Power.START: ("ACTIVE", "start", OrderStatus.STARTING),
    Power.STOP: ("SHUTOFF", "stop", OrderStatus.STOPPING),
}


@record
class Ready:
    """The answer of `Step.prepare`: the call may be made.

    `marker` is what the cloud showed just before the call, such as a server's `updated`; it is kept
    with the intent in the journal, and `Step.landed` is called with it.
    """

    marker: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change to a server, or to a disk, port or address of it.

    An order is one list of steps, in the order in which a plan prints them. `handlers.orders.saga`
    does them (`do_steps`), undoes them (`undo_steps`) and lists their request ids (`request_ids`);
    `to_json` previews one. Steps with the same `name` are done at the same time; names follow each
    other in the order in which they first appear in the list.

    Doing a step is: `prepare`; the intent in the journal; `act`; the outcome in the journal;
    `follow`. `Refused` from any of them fails the order and has all its steps undone; `Transient`
    (also `Postponed`) makes the order come again, and then each step goes on where it was: nothing
    is done twice.
    """

    #: The name that `order.plan` prints: "resize", "extend" ...
    name: str
    #: The id of the call in the journal.
    effect: EffectId
    instance_id: str | None = None
    before: Any = None
    after: Any = None
    #: Makes the one call to OpenStack.
    act: Callable[[], Awaitable[Reply]]
    #: Looks in the cloud for the call whose answer was lost. Called with the marker; returns the
    #: call's request id (empty: done, without an id), or None where it was not done.
    landed: Landed
    #: Looks for the call before its first intent: for what a run did of which a lost or restored
    #: journal knows nothing. Returns what `landed` returns.
    marked: Marked | None = None
    #: Called before the call is made for the first time. Returns None where there is nothing to do:
    #: then the step has ended, without `act` and `follow`.
    prepare: Callable[[], Awaitable[Ready | None]] | None = None
    #: Called when OpenStack refused the call. Returns where that is as good as done (what was to be
    #: deleted is gone); raises `Refused` or `Transient` otherwise. Without it: `Refused`.
    refused: Callable[[CloudRefusal], Awaitable[None]] | None = None
    #: Waits until what the call began has ended, and checks it: `Refused` where it failed. Called
    #: again by each later run of the order.
    follow: Callable[[], Awaitable[None]] | None = None
    #: The compensation: steps that are done one after the other where the order has failed and this
    #: step was begun. Their `name` is not printed.
    undo: "tuple[Step, ...]" = ()
    #: What `order.plan` says: an extension has no way back, though a failed one is cleaned up.
    can_be_undone: bool = True
    #: The id of the disk, port or address; None where the step changes the server itself.
    target: str | None = None
    #: The order's status that is published before the first step of this name.
    status: OrderStatus | None = None
    #: Whether a plan prints the step.
    printed: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the step as it goes over the wire."""
        return {
            "name": self.name,
            "instanceId": self.instance_id,
            "target": self.target,
            "before": self.before,
            "after": self.after,
            "canBeUndone": self.can_be_undone,
        }


def failed(reason: str, detail: str | None = None) -> Refused:
    """Return the failure of a step, 101.001040; `reason` is the word that a program can use."""
    return Refused(Code.FAILED, reason=reason, detail=detail)


# Looks at the cloud.


async def server_now(server_id: str, context: ProjectContext) -> Server:
    """Get the server as it is; `Refused` (`not_found`) where it is gone."""
    try:
        return await context.retrying(lambda: nova.get_server(context.project, server_id))
    except NotFound:
        raise failed("not_found", "the server is gone") from None


def server_shows(
    server_id: str, context: ProjectContext, holds: Callable[[Server], bool]
) -> Landed:
    """Build a `Step.landed`: the call was made if `holds` is true of the server."""

    async def landed(_: object) -> str | None:
        return "" if holds(await nova.get_server(context.project, server_id)) else None

    return landed


def logged(context: ProjectContext, server_id: str, action: str) -> Landed:
    """Build a `Step.landed`: Nova's action log has such an action since the marker, a server's
    `updated`.
    """

    async def landed(since: str) -> str | None:
        return await nova.find_action(context.project, server_id, action, since)

    return landed


async def logged_action(
    server_id: str, request_id: str | None, context: ProjectContext, *, until_ended: bool
) -> InstanceAction | None:
    """Get the entry of Nova's action log; it may be closed only a moment after the server is no
    longer busy. None where the call's request id is not known.
    """
    if request_id is None:
        return None
    limit = Deadline.after(_LOG_LATE)
    while True:
        action = await context.retrying(
            lambda: nova.get_action(context.project, server_id, request_id)
        )
        if action.failed or action.finished or limit.passed or not until_ended:
            return action
        await asyncio.sleep(_LOG_EVERY)


async def with_fault(server: Server, context: ProjectContext) -> Server:
    """Get a server that is in ERROR again once Nova has written why, which it does only after the
    status; seconds at most.
    """
    limit, server_id = Deadline.after(_LOG_LATE), server.id
    while server.status == ERROR and server.fault is None and not limit.passed:
        await asyncio.sleep(_LOG_EVERY)
        try:
            server = await context.retrying(lambda: nova.get_server(context.project, server_id))
        except NotFound:
            break
    return server


# Waits for what a call has begun. One that takes too long, or whose server or volume goes away, has
# failed.


async def follow_server(
    server_id: str,
    effect: EffectId,
    context: ProjectContext,
    progress: OrderProgress,
    ended: Callable[[Server], bool],
) -> Server:
    """Wait until `ended` is true of the server, and return it; publishes its states until then."""
    with context.watchers.servers.follow(server_id) as poller:
        while True:
            server = await _next(poller, effect, "the server", context)
            await progress.publish_server(server)
            if ended(server):
                return server


async def follow_volume(
    volume_id: str, effect: EffectId, context: ProjectContext, ended: Callable[[Volume], bool]
) -> Volume:
    """Wait until `ended` is true of the volume, and return it."""
    with context.watchers.volumes.follow(volume_id) as poller:
        while not ended(volume := await _next(poller, effect, "the volume", context)):
            pass
        return volume


async def _next(poller: Poller[W], effect: EffectId, what: str, context: ProjectContext) -> W:
    try:
        return await context.next(poller, effect)
    except TimeoutError:
        raise failed("timeout", f"{effect} has not ended in time") from None
    except NotFound:
        raise failed("not_found", f"{what} is gone") from None


# Usual steps. `dataclasses.replace` gives them what a plan prints, and their compensation.


def metadata_step(
    name: str,
    effect: EffectId,
    context: ProjectContext,
    *,
    write: Callable[[], Awaitable[Reply]],
    written: Callable[[Server], bool],
) -> Step:
    """Build a step that changes the metadata of the server that is the effect's target."""
    server_id = effect.target
    return Step(
        name=name,
        effect=effect,
        instance_id=server_id,
        act=write,
        landed=server_shows(server_id, context, written),
        refused=metadata_refused(server_id, context),
    )


def metadata_refused(
    server_id: str, context: ProjectContext
) -> Callable[[CloudRefusal], Awaitable[None]]:
    """Build the `Step.refused` of a change of metadata.

    Nova allows it while nothing is under way with the server: raises `Transient` where something
    was, and `Refused` otherwise.
    """

    async def refused(error: CloudRefusal) -> None:
        if isinstance(error, Conflict):
            server = await server_now(server_id, context)
            if server.busy or (server.status in METADATA_STATES and not server.locked):
                raise Transient("busy", detail=str(error)) from error
        raise error.as_failure() from error

    return refused


def state_step(name: str, effect: EffectId, context: ProjectContext, *, well: bool) -> Step:
    """Build a step in which the admin cloud declares the effect's target, a server in ERROR, well,
    or puts it back into ERROR. No plan prints it.
    """
    server_id = effect.target

    async def act() -> Reply:
        return await nova.reset_state(await context.cloud.admin(), server_id, well=well)

    async def prepare() -> Ready:
        await context.cloud.admin()  # a log-in that fails must not leave an intent behind
        return Ready()

    return Step(
        name=name,
        effect=effect,
        instance_id=server_id,
        prepare=prepare,
        act=act,
        landed=server_shows(server_id, context, lambda one: (one.status != ERROR) is well),
        printed=False,
    )


def power_step(
    power: Power, effect: EffectId, context: ProjectContext, progress: OrderProgress
) -> Step:
    """Build a step that starts or stops the effect's target; nothing is done where it is so
    already.

    A server that is busy, or was quicker than the call, is `Transient`: the next run sees.
    """
    server_id = effect.target
    end, action, status = _POWERED[power]

    async def prepare() -> Ready | None:
        server = await server_now(server_id, context)
        return None if server.status == end and not server.busy else Ready(server.updated)

    async def refused(error: CloudRefusal) -> None:
        if isinstance(error, Conflict):
            raise Transient(error.reason, detail=str(error)) from error
        raise error.as_failure() from error

    async def follow() -> None:
        server = await follow_server(
            server_id, effect, context, progress, lambda found: not found.busy
        )
        if server.status == end:
            return
        # What was done and then undone by somebody else was done.
        request_id = context.effects.request_id(effect)
        entry = await logged_action(server_id, request_id, context, until_ended=True)
        if entry is None or entry.failed or not entry.finished:
            raise failed(f"{action}_failed", f"the server is {server.status}")

    return Step(
        name=action,
        effect=effect,
        instance_id=server_id,
        after=end,
        prepare=prepare,
        act=lambda: nova.change_power(context.project, server_id, power, Force.SOFT),
        landed=logged(context, server_id, action),
        refused=refused,
        follow=follow,
        status=status,
    )
