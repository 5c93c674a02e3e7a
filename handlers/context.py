"""What a handler is given: the requester's project, its effects, and ways to tell what happens."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from handlers.effects.backoff import Deadline
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import EffectName, Effects
from handlers.openstack.cinder import Volume, get_volume, list_volumes
from handlers.openstack.cloud import Cloud, Project
from handlers.openstack.glance import Image, get_image, list_images
from handlers.openstack.nova import Server, get_server, list_servers
from handlers.openstack.watch import Poller, Watch, Watched
from handlers.orders.checks import Checks
from messages.errors import Postponed, Refused
from messages.results import Result
from messages.updates import Update

T = TypeVar("T")
W = TypeVar("W", bound=Watched)

#: The property, or item of metadata, that marks what a request makes (`RequestContext.mark`), by which a
#: later run of the request finds it again.
MARK = "ecs_request"
#: The property, or item of metadata, that says which of the things a request makes it is.
PART = "ecs_part"
#: The name under which is remembered what was answered before the end.
ANSWER = EffectId(EffectKind.ANSWER)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided about the business."""

    require_fee_data: bool
    billing_zone: ZoneInfo
    #: The region whose orders are carried out.
    region: str

    def billing_now(self) -> datetime:
        """The time now, as the billing system reads it."""
        return datetime.now(self.billing_zone)

    def billing_time(self, seconds: float) -> datetime:
        """A time in Unix seconds, as the billing system reads it."""
        return datetime.fromtimestamp(seconds, self.billing_zone)


class Watchers:
    """The shared watches of one project."""

    def __init__(self, project: Project) -> None:
        self.servers: Watch[Server] = Watch(
            lambda since: list_servers(project, **{"changes-since": since}),
            lambda: list_servers(project),
            lambda one: get_server(project, one),
        )
        self.images: Watch[Image] = Watch(
            lambda since: list_images(project, updated_at=f"gte:{since}"),
            lambda: list_images(project),
            lambda one: get_image(project, one),
        )
        self.volumes: Watch[Volume] = Watch(
            lambda since: list_volumes(project, updated_at=f"gte:{since.removesuffix('Z')}"),
            lambda: list_volumes(project),
            lambda one: get_volume(project, one),
        )

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything in this project."""
        return self.servers.idle and self.volumes.idle and self.images.idle

    def close(self) -> None:
        """Stop watching."""
        self.servers.close()
        self.volumes.close()
        self.images.close()


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """One request's surroundings, in whatever project it acts."""

    cloud: Cloud
    effects: Effects
    policy: Policy
    #: Until when the request must have been accepted by OpenStack, or refused.
    deadline: Deadline
    #: Seconds for which what was accepted is followed; each wait of an order has as many.
    wait_timeout: float
    #: Until when this delivery is held; what still waits then goes on by way of a retry queue.
    hold: Deadline
    #: Whether a failure that may pass counts as one that will not: there is no later try.
    last_try: bool
    #: The same for every run of the request, and for no other: what is made can be marked with it.
    mark: str
    #: Publish a status update. The final ones are held back until the result is safe.
    publish: Callable[[Update], Awaitable[None]]
    #: Answer before the course has ended. Must be the same answer whenever the request is run
    #: again.
    answer: Callable[[Result], Awaitable[None]]
    #: What is watched in a project, shared by all who wait there.
    watchers_of: Callable[[Project], Watchers]
    #: What was looked at before anything is begun.
    checks: Checks = field(default_factory=Checks)
    #: What became of the targets of a batch so far, by id: why one fails, or None: it is right, and
    #: not begun.
    checked: dict[str, Refused | None] = field(default_factory=dict)
    #: Whether the final update of a resource (its kind and id) was told, by whichever run.
    final_published: Callable[[str, str], bool] = lambda _kind, _id: False

    async def in_project(self, project_id: str) -> "ProjectContext":
        """The same in one project; `Transient` where no session can be had there."""
        project = self.cloud.warm(project_id)
        if project is None:
            project = await self.retrying(lambda: self.cloud.project(project_id))
        shared = {one.name: getattr(self, one.name) for one in fields(RequestContext)}
        return ProjectContext(project=project, watchers=self.watchers_of(project), **shared)

    @property
    def answered(self) -> Result | None:
        """What was answered already, by an earlier run or because the time was up.

        Nothing more is begun; what is not known is found out, and the course told to its end.
        """
        record = self.effects.remembered(ANSWER)
        return Result.restored(record) if record is not None else None

    async def retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer of a call that changes nothing, tried again within the time limit."""
        return await self.effects.retrying(call)

    async def next(self, feed: Poller[W], effect: EffectName) -> W:
        """What the feed says next of something that this effect began.

        `TimeoutError` when the wait has lasted its time, in all its deliveries; `Postponed` when
        this delivery has.
        """
        limit = Deadline.after(self.wait_timeout - self.effects.age(effect))
        try:
            return await feed.next(min(limit, self.hold))
        except TimeoutError:
            if limit.passed:
                raise
            raise Postponed(str(effect)) from None


@dataclass(slots=True, kw_only=True)
class ProjectContext(RequestContext):
    """A request's surroundings in one project: the requester's, or the one that owns what is
    touched.
    """

    project: Project
    watchers: Watchers
