"""The context of a request: its project, its effects, its time limits, and its replies."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from handlers.effects.backoff import Deadline, retrying
from handlers.effects.ledger import Effect, EffectId, EffectKind
from handlers.effects.once import Effects
from handlers.effects.waits import Wait, Waits, note_nothing
from handlers.openstack.cinder import Volume, get_volume, volume_pages
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.glance import Image, get_image, image_pages
from handlers.openstack.nova import Server, get_server, server_states
from handlers.openstack.project import Project
from handlers.openstack.watch import Pace, Poller, Watch, Watched
from messages.codes import Code
from messages.errors import Postponed, Refused, Transient
from messages.record import record
from messages.results import Result
from messages.updates import Update
from messages.wire import named_ids

T = TypeVar("T")
W = TypeVar("W", bound=Watched)

_mark_of = named_ids(UUID("0d2f7a63-52c1-5a0c-9b0e-8f4f0c1d9e55"))
#: The property, or item of metadata, that marks what a request makes (`RequestContext.mark`), by
#: which a later run of the request finds it again.
MARK = "ecs_request"
#: The property, or item of metadata, that says which of the things a request makes it is.
PART = "ecs_part"
#: The id under which is remembered what was answered before the end.
ANSWER = EffectId(EffectKind.ANSWER)


@record
class Check:
    """One check, of one server or of the whole order.

    `may_pass`: it failed, and may pass when the order is retried.
    """

    name: str
    instance_id: str | None
    failure: Refused | None = None
    may_pass: bool = False


class Checks:
    """The checks of one request, in the order in which they ended."""

    def __init__(self) -> None:
        self.listed: list[Check] = []

    @contextmanager
    def of(self, name: str, instance_id: str | None = None) -> Iterator[None]:
        """Record what is done inside as one check. An error raised inside is recorded as the reason
        why the check failed, and raised on.
        """
        try:
            yield
        except Refused as refused:
            self.listed.append(Check(name, instance_id, refused))
            raise
        except CloudRefusal as error:
            self.listed.append(Check(name, instance_id, error.as_failure()))
            raise
        except Transient as error:
            if error.reason == "busy":
                failure = Refused(Code.FAILED, reason=error.reason, detail=str(error))
                self.listed.append(Check(name, instance_id, failure, may_pass=True))
            raise
        self.listed.append(Check(name, instance_id))

    @property
    def failed(self) -> Check | None:
        """The first check that failed."""
        return next((one for one in self.listed if one.failure is not None), None)


@record
class Policy:
    """The operator's decisions about the business."""

    require_fee_data: bool
    billing_zone: ZoneInfo
    #: The region whose orders are carried out.
    region: str

    def billing_now(self) -> datetime:
        """Return the time now in the billing system's time zone."""
        return datetime.now(self.billing_zone)

    def billing_time(self, seconds: float) -> datetime:
        """Convert Unix seconds to the billing system's time zone."""
        return datetime.fromtimestamp(seconds, self.billing_zone)


@record
class LoggedRequest:
    """A request that was begun, as the journal knows it; times are Unix seconds.

    `project_id` is None for a softDown, whose servers may be several projects'. `result` is the
    record of `Result.stored`, `finals` are final status updates as they were published, `wait` is
    None for what goes on or is done.
    """

    name: str
    operation: str
    project_id: str | None
    is_done: bool
    received_at: float
    updated_at: float
    effects: Mapping[EffectId, Effect]
    result: dict[str, Any] | None
    finals: tuple[dict[str, Any], ...]
    wait: Wait | None


class RequestLog(Protocol):
    """The requests that were begun, whichever worker has them."""

    async def find(self, project_id: str, name: str) -> Sequence[LoggedRequest]:
        """Return the project's requests with this id, and softDowns of no project: orders first.
        Raises `Transient` where the log cannot be read.
        """


class NoRequests:
    """The log of what has no journal: a preview on the command line."""

    async def find(self, project_id: str, name: str) -> Sequence[LoggedRequest]:
        return ()


class Watchers:
    """The watches of one project, shared by all requests that wait there."""

    def __init__(self, project: Project, pace: Pace) -> None:
        self.servers: Watch[Server] = Watch(
            lambda since: server_states(project, **{"changes-since": since}),
            lambda: server_states(project),
            lambda one: get_server(project, one),
            pace,
        )
        self.images: Watch[Image] = Watch(
            lambda since: image_pages(project, updated_at=f"gte:{since}"),
            lambda: image_pages(project),
            lambda one: get_image(project, one),
            pace,
        )
        self.volumes: Watch[Volume] = Watch(
            lambda since: volume_pages(project, updated_at=f"gte:{since.removesuffix('Z')}"),
            lambda: volume_pages(project),
            lambda one: get_volume(project, one),
            pace,
        )

    @property
    def idle(self) -> bool:
        """True while nobody waits for anything in this project."""
        return self.servers.idle and self.volumes.idle and self.images.idle

    def close(self) -> None:
        """Stop watching."""
        self.servers.close()
        self.volumes.close()
        self.images.close()


class Environment:
    """The parts that all requests of a process share: cloud, policy, the log of requests, a watch
    for each project.
    """

    def __init__(self, cloud: Cloud, policy: Policy, requests: RequestLog) -> None:
        self.cloud = cloud
        self.policy = policy
        self.requests = requests
        self._watchers: dict[str, Watchers] = {}
        self._pace = Pace()

    def watchers_of(self, project: Project) -> Watchers:
        """Return the project's watchers; those of projects in which nobody waits are closed."""
        found = self._watchers.get(project.id)
        if found is None:
            for name in [name for name, watchers in self._watchers.items() if watchers.idle]:
                self._watchers.pop(name).close()
            found = self._watchers[project.id] = Watchers(project, self._pace)
        return found

    def close(self) -> None:
        """Stop watching."""
        for watchers in self._watchers.values():
            watchers.close()


@record
class RequestTimes:
    """The time limits of one delivery of a request."""

    #: Until when this delivery is held; what still waits then goes on by way of a retry queue.
    hold: Deadline
    #: Seconds for which what was accepted is followed; each wait of an order has as many.
    wait_timeout: float
    #: True where a failure that may pass counts as one that will not: there is no later try.
    last_try: bool = False


class ReplyChannel(Protocol):
    """The replies to one request."""

    #: What is known of the targets of a batch so far, by id: the reason why one fails, or None for
    #: one that passed its checks and is not begun.
    checked: dict[str, Refused | None]

    async def publish(self, update: Update) -> None:
        """Publish a status update. The final ones are held back until the result is safe."""

    async def answer(self, result: Result) -> None:
        """Publish the result before the course has ended. It must be the same result whenever the
        request is run again.
        """

    def final_published(self, resource: str, resource_id: str) -> bool:
        """True where the final update of this resource was published, by whichever run."""


class NoReplies:
    """The replies to a preview: nothing is published."""

    def __init__(self) -> None:
        self.checked: dict[str, Refused | None] = {}

    async def publish(self, update: Update) -> None:
        """Publish nothing."""

    async def answer(self, result: Result) -> None:
        """Answer nobody."""

    def final_published(self, resource: str, resource_id: str) -> bool:
        return False


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """One request's context, in whatever project it acts."""

    environment: Environment
    effects: Effects
    times: RequestTimes
    replies: ReplyChannel
    #: The journal's key of the request, the same for every run of it.
    key: str
    #: What it waits for, in this run.
    waits: Waits = field(default_factory=lambda: Waits(note_nothing))
    #: The checks that were made before anything is begun.
    checks: Checks = field(default_factory=Checks)

    @property
    def cloud(self) -> Cloud:
        """The cloud, in which any project can be entered."""
        return self.environment.cloud

    @property
    def policy(self) -> Policy:
        """The operator's decisions."""
        return self.environment.policy

    @property
    def mark(self) -> str:
        """The same for every run of the request, and for no other: what is made is marked with it."""
        return _mark_of(self.key).replace("-", "")

    async def in_project(self, project_id: str) -> "ProjectContext":
        """Return the request's context in one project; `Transient` where no session can be had
        there.
        """
        project = self.cloud.warm(project_id)
        if project is None:
            project = await self.retrying(lambda: self.cloud.project(project_id))
        return ProjectContext(
            project=project,
            watchers=self.environment.watchers_of(project),
            environment=self.environment,
            effects=self.effects,
            times=self.times,
            replies=self.replies,
            key=self.key,
            waits=self.waits,
            checks=self.checks,
        )

    @property
    def answered(self) -> Result | None:
        """The answer that an earlier run gave, or this one because the time was up.

        After it nothing more is begun; what is not known is found out, and the course followed to
        its end.
        """
        record = self.effects.remembered(ANSWER)
        return Result.restored(record) if record is not None else None

    @property
    def busy_until(self) -> Deadline:
        """The instant until which an order waits for a resource that is busy: one wait's time, in
        this delivery.
        """
        return min(self.times.hold, Deadline.after(self.times.wait_timeout))

    async def retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that changes nothing, and retry it within the time limit."""
        return await retrying(call, self.effects.retry_until, self.effects.expiry)

    async def next(self, poller: Poller[W], effect: EffectId) -> W:
        """Return the next state of something that this effect began.

        `TimeoutError` when the wait has lasted its time, in all its deliveries; `Postponed` when
        this delivery has.
        """
        limit = Deadline.after(self.times.wait_timeout - self.effects.age(effect))
        try:
            with self.waits.on(poller):
                return await poller.next(min(limit, self.times.hold))
        except TimeoutError:
            if limit.passed:
                raise
            raise Postponed(str(effect)) from None


@dataclass(slots=True, kw_only=True)
class ProjectContext(RequestContext):
    """A request's context in one project: the requester's, or the one that owns what is touched."""

    project: Project
    watchers: Watchers
