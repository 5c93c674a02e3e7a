"""Start, stop and reboot many servers: all are checked before any is touched, then all at once."""

import asyncio
from collections.abc import Mapping

from handlers.context import ProjectContext
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.nova import Server
from handlers.servers.guard import find_servers, unknown_server
from handlers.servers.power import (
    begin,
    find_out,
    follow_accepted,
    idle_for,
    is_unpaid,
    power_refusal,
    publish_end,
)
from handlers.servers.targets import Batch, answer_of_servers, power_effect
from messages.codes import Code
from messages.commands import PowerBatch
from messages.errors import OutcomeUnknown, Refused, Transient
from messages.results import Result


async def act_on_servers(task: PowerBatch, context: ProjectContext) -> Result:
    """Carry it out on all; answered once Nova has accepted or refused each, each followed until it
    has ended.
    """
    batch = _PowerBatch(task, context)
    if context.answered is not None:
        return await batch.resume()
    unseen: Mapping[str, Refused] = {}
    if any(context.effects.begun(effect) for effect in batch.effects.values()):
        servers, unseen = await find_servers(context, task.server_ids)
    else:
        servers = await _check(task, context)
    if any(context.replies.checked.values()):
        return batch.result()
    batch.servers = {**servers, **unseen}
    return await batch.run()


async def _check(task: PowerBatch, context: ProjectContext) -> dict[str, Server]:
    """Return the servers by id; `checked` says what is wrong with which."""
    power, checked = task.power, context.replies.checked
    servers, unseen = await find_servers(context, task.server_ids)
    for one in task.server_ids:
        checked[one] = unseen.get(one)
        if checked[one] is None and one not in servers:
            checked[one] = unknown_server(one, power)
        elif checked[one] is None and is_unpaid(servers[one], power, context):
            checked[one] = Refused(Code.SERVER_UNPAID)

    async def wait(server_id: str) -> None:
        try:
            servers[server_id] = await idle_for(servers[server_id], power, task.force, context)
        except Refused as refused:  # it has gone away
            checked[server_id] = refused

    if not any(checked.values()):
        # A batch that is refused anyway waits for nothing: its other servers are checked as they
        # are.
        await asyncio.gather(*map(wait, task.server_ids))
    for one in task.server_ids:
        checked[one] = checked[one] or power_refusal(servers[one], power, task.force)
    return servers


class _PowerBatch(Batch):
    def __init__(self, task: PowerBatch, context: ProjectContext) -> None:
        super().__init__(context, {one: power_effect(task.power, one) for one in task.server_ids})
        self._task = task
        #: The servers by id, or why one cannot be seen.
        self.servers: Mapping[str, Server | Refused] = {}

    async def begin(self, target_id: str) -> Refused | None:
        task, context = self._task, self.context
        if context.effects.done(self.effects[target_id]):
            return None  # by an earlier run; the server may even be gone since
        server = self.servers.get(target_id)
        if server is None:
            return unknown_server(target_id, task.power)
        if isinstance(server, Refused):
            return server
        try:
            await begin(server, task.power, task.force, context)
        except Refused as refused:
            return refused
        except OutcomeUnknown:
            pass  # so the effects say
        except (CloudRefusal, Transient) as error:
            if context.answered is not None:
                raise  # nobody waits for it any more: it is retried, and found out
            return Refused(Code.FAILED, reason=error.reason, detail=str(error))
        return None

    async def find_out(self, target_id: str) -> None:
        await find_out(target_id, self._task.power, self.context)

    async def follow(self, target_id: str) -> None:
        await follow_accepted(target_id, self._task.power, self._task.force, self.context)

    async def publish_end(self, target_id: str) -> None:
        await publish_end(self.context, target_id, self._task.power.value, self.effects[target_id])

    def result(self) -> Result:
        rest = Refused(Code.FAILED, reason="timeout")
        effects, checked = self.context.effects.known, self.context.replies.checked
        return answer_of_servers(self._task, effects, checked, rest)
