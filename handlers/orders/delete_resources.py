"""Steps that delete servers, volumes and ports, each followed until the resource is gone.

A resource that is gone already counts as deleted.
"""

from collections.abc import Callable
from typing import Any

from handlers.context import ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cinder import PASSING, Volume
from handlers.openstack.errors import CloudRefusal, NotFound
from handlers.openstack.nova import ERROR, GONE, SOFT_DELETED
from handlers.orders.progress import OrderProgress
from handlers.orders.snapshot import find_remaining
from handlers.orders.step import Ready, Step, failed, server_shows, with_fault

#: The tasks that Nova sets before it accepts a deletion.
_DELETING_SERVER = frozenset({"deleting", "soft-deleting"})
#: The states that Cinder sets when it accepts the deletion of a volume, and when that has failed.
_DELETING_VOLUME = frozenset({"deleting", "error_deleting"})
#: States that a volume leaves by itself, or when its server is gone.
_BUSY = PASSING | {"in-use"}
#: Cinder's answer where a volume cannot be deleted as it is: it has had a snapshot since, or been
#: put into a group.
_BAD_STATE = 400


class Deletions:
    """Makes the steps of one order that delete resources.

    `kept` are the ids of the servers that the cloud keeps for a while after their deletion
    (`SOFT_DELETED`), with what they use.
    """

    def __init__(self, context: ProjectContext, progress: OrderProgress) -> None:
        self._context = context
        self._progress = progress
        self.kept: set[str] = set()

    def server(self, server_id: str, before: Any = None, after: Any = None) -> Step:
        """Delete a server; `Refused` where it stays."""
        effect, effects = EffectId(EffectKind.DELETE, server_id), self._context.effects

        async def landed(_: object) -> str | None:
            server = await find_remaining(server_id, self._context)
            return "" if server is None or server.task_state in _DELETING_SERVER else None

        async def follow() -> None:
            if effects.done(effect) and not await self._until_gone(server_id, effect, GONE):
                self.kept.add(server_id)

        return Step(
            name="delete",
            effect=effect,
            instance_id=server_id,
            before=before,
            after=after,
            act=lambda: nova.delete_server(self._context.project, server_id),
            landed=landed,
            refused=gone_already,
            follow=follow,
            can_be_undone=False,
        )

    def kept_server(self, server_id: str) -> Step:
        """Delete for good a server that the cloud keeps, where the cloud allows that."""
        effect, effects = EffectId(EffectKind.FORCE_DELETE, server_id), self._context.effects

        async def prepare() -> Ready | None:
            return Ready() if server_id in self.kept else None

        async def refused(error: CloudRefusal) -> None:
            if isinstance(error, NotFound):
                self.kept.discard(server_id)

        async def follow() -> None:
            if effects.done(effect):
                self.kept.discard(server_id)
                await self._until_gone(server_id, effect, frozenset({"DELETED"}))

        return Step(
            name="forceDelete",
            effect=effect,
            instance_id=server_id,
            before=server_id,
            prepare=prepare,
            act=lambda: nova.force_delete(self._context.project, server_id),
            landed=server_shows(
                server_id,
                self._context,
                lambda it: it.status == "DELETED" or it.task_state in _DELETING_SERVER,
            ),
            refused=refused,
            follow=follow,
            can_be_undone=False,
        )

    def volume(self, volume_id: str, since: EffectId, server_id: str | None = None) -> Step:
        """Delete a volume once nothing uses it; `Refused` where it ends in error.

        A volume is kept that Cinder does not delete as it is, and one whose server is kept. `since`
        is the effect from whose beginning the wait for its users is timed.
        """
        effect = EffectId(EffectKind.DELETE, volume_id)

        async def prepare() -> Ready | None:
            if server_id in self.kept:
                return None
            free = await self._follow_volume(volume_id, since, lambda it: it.status not in _BUSY)
            return Ready() if free is not None else None

        async def landed(_: object) -> str | None:
            volume = await self._find_volume(volume_id)
            return "" if volume is None or volume.status in _DELETING_VOLUME else None

        async def refused(error: CloudRefusal) -> None:
            # Nova, which deletes some disks itself, may have been quicker.
            found = await self._find_volume(volume_id)
            if found is not None and found.status in _DELETING_VOLUME:
                await self._until_volume_gone(volume_id, effect)
            elif found is not None and error.status != _BAD_STATE:
                raise error

        async def follow() -> None:
            if self._context.effects.done(effect):
                await self._until_volume_gone(volume_id, effect)

        return Step(
            name="deleteVolume",
            effect=effect,
            instance_id=server_id,
            before=server_id,
            target=volume_id,
            prepare=prepare,
            act=lambda: cinder.delete_volume(self._context.project, volume_id),
            landed=landed,
            refused=refused,
            follow=follow,
            can_be_undone=False,
        )

    def port(self, port_id: str, server_id: str | None = None) -> Step:
        """Delete a port, which is gone when Neutron has answered."""

        async def prepare() -> Ready | None:
            return Ready() if server_id not in self.kept else None

        async def landed(_: object) -> str | None:
            return None  # deleted again, a port that is gone is answered 404

        return Step(
            name="deletePort",
            effect=EffectId(EffectKind.DELETE, port_id),
            instance_id=server_id,
            before=server_id,
            target=port_id,
            prepare=prepare,
            act=lambda: neutron.delete_port(self._context.project, port_id),
            landed=landed,
            refused=gone_already,
            can_be_undone=False,
        )

    async def _until_gone(self, server_id: str, effect: EffectId, gone: frozenset[str]) -> bool:
        """Wait until a server is gone; False where the cloud keeps it. Raises `Refused` where it
        ends in ERROR, or the time limit passes.

        A server without a task may still be on its way: Nova confirms a resize before it deletes,
        and then has no task for a moment.
        """
        with self._context.watchers.servers.follow(server_id) as feed:
            while True:
                try:
                    server = await self._context.next(feed, effect)
                except NotFound:
                    return True
                except TimeoutError:
                    raise failed("timeout", f"server {server_id} is not gone in time") from None
                if server.status in gone:
                    return server.status != SOFT_DELETED
                if server.status == ERROR and server.task_state not in _DELETING_SERVER:
                    fault = (await with_fault(server, self._context)).fault
                    raise failed("delete_failed", f"server {server_id} is {server.status}: {fault}")
                await self._progress.publish_server(server)

    async def _until_volume_gone(self, volume_id: str, effect: EffectId) -> None:
        last = await self._follow_volume(
            volume_id, effect, lambda it: it.status == "error_deleting"
        )
        if last is not None:
            raise failed("delete_failed", f"volume {volume_id} is {last.status}")

    async def _follow_volume(
        self, volume_id: str, effect: EffectId, ended: Callable[[Volume], bool]
    ) -> Volume | None:
        """Wait until a volume is as `ended` says, and return it; None where it is gone."""
        volume = await self._find_volume(volume_id)
        if volume is None or ended(volume):
            return volume
        with self._context.watchers.volumes.follow(volume_id) as feed:
            while True:
                try:
                    volume = await self._context.next(feed, effect)
                except NotFound:
                    return None
                except TimeoutError:
                    raise failed(
                        "timeout", f"volume {volume_id} is still {volume.status}"
                    ) from None
                if ended(volume):
                    return volume

    async def _find_volume(self, volume_id: str) -> Volume | None:
        context = self._context
        try:
            return await context.retrying(lambda: cinder.get_volume(context.project, volume_id))
        except NotFound:
            return None


async def gone_already(error: CloudRefusal) -> None:
    """Accept that what was to be changed is gone; raise any other refusal."""
    if not isinstance(error, NotFound):
        raise error
