"""The long form: a mixed load on two workers for minutes, while one kind of fault strikes again and again."""

import json
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from sandbox.worker import WorkerProcess
from tests.faults.invariants import MEMORY, RECOVERY, Report, report, resident_megabytes
from tests.faults.kinds import KINDS, Asked
from tests.faults.lasting import LastingRequester
from tests.tenant import Tenant
from tests.workshop import Workshop
from workers.topology import DEAD_QUEUE, declare, topology

#: Requests that are not answered yet, at most: two cores have other things to do.
OPEN = 40
#: Parts of the requests that are sent more than once, and that are rubbish.
COPIES, RUBBISH = 0.3, 0.15
#: Seconds for what was asked to come to its end.
PATIENCE = 240.0
PARAMETER = "101.001002"
_RUBBISH = (b"{", b"[1]", b'{"operation": NaN}', b'{"operation": "server.action", "server_id": 1}')


@dataclass
class Row:
    """What a phase has seen; recovery in seconds (the longest), memory in megabytes (the larger of two workers)."""

    fault: str
    injected: int = 0
    inputs: int = 0
    results: int = 0
    parked: int = 0
    in_vain: int = 0
    copies: int = 0
    duplicate_effects: int = 0
    lost: int = 0
    recovered: float = 0.0
    memory_before: int = 0
    memory_after: int = 0


class Traffic(Thread):
    """A console and a billing system that do not care what happens: every kind of request, copies, rubbish."""

    def __init__(self, url: str, cloud: SimulatedOpenStack, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.requester = LastingRequester(url)
        self.tenant = Tenant(cloud.clouds_yaml, "tenant-a")
        self.asked: list[Asked] = []
        #: Ids of what nobody waits for an answer to: it must be parked.
        self.unheard: set[str] = set()
        self.copies = 0
        self._cloud = cloud
        self._chance = chance
        self._ending = Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._send_one()
                self.requester.listen(0.05)
                while len(self.open()) >= OPEN and not self._ending.is_set():
                    self.requester.listen(0.2)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        """Send no more."""
        self._ending.set()
        self.join()
        if self.error is not None:
            raise self.error

    def open(self) -> list[Asked]:
        """What has no answer yet."""
        answered = {one.correlation_id for one in self.requester.heard if one.source is not Source.STATUS}
        return [one for one in self.asked if one.message_id not in answered]

    def unended(self) -> list[Asked]:
        """What has no answer, or fewer final updates than there must be."""
        finals: dict[str, set[tuple[str, str]]] = {}
        for one in self.requester.heard:
            if one.is_final:
                finals.setdefault(one.body["message_id"], set()).add((one.body["resource"], one.body["id"]))
        replies = [one for one in self.requester.heard if one.source is Source.REPLY]
        refused = {one.correlation_id for one in replies if one.body["code"] not in (200, 201)}
        waiting = {one.message_id for one in self.open()}
        return [
            one
            for one in self.asked
            if one.message_id in waiting
            or (one.message_id not in refused and len(finals.get(one.message_id, ())) < len(one.finals))
        ]

    def _send_one(self) -> None:
        if self._chance.random() < RUBBISH:
            self._send_rubbish()
            return
        asked = self._chance.choice(KINDS).ask(self.tenant, self._cloud)
        self.asked.append(asked)
        asked.publish(self.requester)
        if self._chance.random() < COPIES:
            for _ in range(self._chance.randint(1, 3)):
                asked.publish(self.requester)
                self.copies += 1

    def _send_rubbish(self) -> None:
        body = self._chance.choice(_RUBBISH)
        if self._chance.random() < 0.5:
            self.unheard.add(self.requester.publish("ecs.commands", "server.action", body))
            return
        message_id = uuid.uuid4().hex

        def publish(requester: Requester) -> None:
            requester.publish("ecs.commands", "server.action", body, message_id=message_id, reply_to=requester.reply_to)

        self.asked.append(Asked("rubbish", message_id, publish, "", PARAMETER, {}, ()))
        publish(self.requester)


class Site:
    """Two workers, what they work on, and what is done to them."""

    def __init__(
        self, workshop: Workshop, broker: PrivateBroker, cloud: SimulatedOpenStack, chance: random.Random
    ) -> None:
        self.workshop = workshop
        self.broker = broker
        self.cloud = cloud
        self.chance = chance
        self.workers = [workshop.worker(), workshop.worker()]

    def kill(self) -> None:
        """One of the workers, and another takes its place."""
        number = self.chance.randrange(2)
        self.workers[number].kill()
        self.workers[number] = self.workshop.worker(wait=False)

    def restart_broker(self) -> None:
        """As an upgrade does."""
        self.broker.restart()

    def stop_a_while(self) -> None:
        """One of the workers stands still, longer than the broker bears."""
        worker = self.chance.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(2, 12))
        worker.signal(signal.SIGCONT)

    def spoil_answers(self) -> None:
        """A few calls of the worker's fail, or are done and not answered."""
        service = self.chance.choice(["nova", "nova", "cinder", "glance", "neutron", "keystone"])
        fault = self.chance.choice([
            {"status": 500, "error": "database is away", "after": True}, {"status": 500, "error": "database is away"},
            {"status": 503, "error": "overloaded", "retry_after": "1"}, {"status": 429, "error": "slow down"},
            {"answer": "html", "after": True}, {"answer": "hangup", "after": True}, {"answer": "cut"}, {"delay": 3},
            {"status": 401, "error": "expired"},
        ])  # fmt: skip
        self.cloud.fault(f"api.{service}", user="ecs-worker", times=self.chance.randint(1, 4), **fault)


@dataclass(frozen=True)
class Phase:
    """A kind of fault, how often it strikes (seconds from, to), and its share of the time."""

    name: str
    fault: str
    strike: Callable[[Site], None]
    every: tuple[float, float]
    share: float


PHASES = (
    Phase("kill", "a worker killed (SIGKILL)", Site.kill, (1.0, 6.0), 0.4),
    Phase("broker", "broker restarted every 10 s", Site.restart_broker, (10.0, 10.0), 0.25),
    Phase("cloud", "OpenStack: failing, lost and late answers", Site.spoil_answers, (0.5, 2.0), 0.2),
    Phase("stop", "a worker stopped (SIGSTOP) for 2 to 12 s", Site.stop_a_while, (4.0, 8.0), 0.15),
)


def run(phases: list[Phase], minutes: float, seed: int) -> Iterator[tuple[Row, list[str]]]:
    """Each phase's row, and what it has shown to be broken."""
    shares = sum(phase.share for phase in phases)
    with PrivateBroker() as broker:
        for phase in phases:
            seconds = minutes * 60 * phase.share / shares
            tell(f"{phase.fault}, for {seconds:.0f} s")
            yield run_phase(phase, seconds, broker, random.Random(seed))


def run_phase(phase: Phase, seconds: float, broker: PrivateBroker, chance: random.Random) -> tuple[Row, list[str]]:
    """One kind of fault for so many seconds."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="ecs-faults-"))
        cloud = stack.enter_context(SimulatedOpenStack(pace=0.3))
        url = broker.add_vhost(f"{phase.name}-{uuid.uuid4().hex[:6]}")
        declare(url, topology())
        workshop = stack.enter_context(Workshop(url, cloud, folder))
        site = Site(workshop, broker, cloud, chance)
        traffic = Traffic(url, cloud, chance)
        traffic.start()
        row, broken = Row(phase.fault), []
        time.sleep(min(8.0, seconds / 4))  # caches and pools are filled
        row.memory_before = largest(site.workers)
        strikes(phase, site, LastingRequester(url), seconds, row, broken)
        traffic.end()
        await_ends(traffic, site)
        for worker in site.workers:
            worker.wait_ready(RECOVERY)
        row.memory_after = largest(site.workers)
        if row.memory_after - row.memory_before > MEMORY:
            broken.append(f"a worker grew from {row.memory_before} to {row.memory_after} MB")
        broken += ["a worker did not end well at SIGTERM" for worker in site.workers if worker.terminate() != 0]
        account(traffic, cloud, row, broken)
        traffic.requester.close()
        traffic.tenant.close()
        if broken:
            tell(f"journal and logs are in {folder}")
        else:
            shutil.rmtree(folder)
        return row, broken


def strikes(phase: Phase, site: Site, probe: LastingRequester, seconds: float, row: Row, broken: list[str]) -> None:
    """Inject the fault again and again; after each the workers must work again."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        began = time.monotonic()
        phase.strike(site)
        row.injected += 1
        took = recovery(probe)
        row.recovered = max(row.recovered, round(took, 1))
        if took > RECOVERY:
            broken.append(f"it took {took:.0f} s until a request was answered")
        pause = site.chance.uniform(*phase.every) - (time.monotonic() - began)
        time.sleep(max(0.0, pause))
    site.cloud.clear_faults()
    probe.close()


def recovery(probe: LastingRequester) -> float:
    """Seconds until a request that asks for a server that is not there has its answer."""
    began = time.monotonic()
    asked = probe.command("server.action", server_id=str(uuid.uuid4()), body={"os-start": None})
    probe.result_of(asked, 120)
    probe.heard.clear()
    return time.monotonic() - began


def await_ends(traffic: Traffic, site: Site) -> None:
    """Wait for all that was asked; what does not end in time is found missing later."""
    limit = time.monotonic() + PATIENCE
    while (left := len(traffic.unended())) and time.monotonic() < limit:
        traffic.requester.listen(0.5)
        tell(f"{left} of {len(traffic.asked)} under way", passing=True)
    traffic.requester.listen(1.0)
    tell("")


def account(traffic: Traffic, cloud: SimulatedOpenStack, row: Row, broken: list[str]) -> None:
    """Fill in the row."""
    found: Report = report(traffic.requester.heard, traffic.asked, traffic.tenant, cloud.executed(), lenient=True)
    parked = traffic.requester.take(DEAD_QUEUE)
    row.inputs, row.results = found.inputs + len(traffic.unheard), found.results
    row.in_vain, row.copies = found.in_vain, traffic.copies
    row.duplicate_effects, row.parked = found.duplicate_effects, len(parked)
    row.lost = found.lost + len(traffic.unheard - parked)
    broken += found.broken
    broken += [f"neither answered nor parked: {one}" for one in sorted(traffic.unheard - parked)]
    broken += [f"parked without need: {one}" for one in sorted(parked - traffic.unheard)]


def largest(workers: list[WorkerProcess]) -> int:
    """Megabytes of the larger one."""
    return round(max(resident_megabytes(worker.pid) for worker in workers))


def tell(text: str, *, passing: bool = False) -> None:
    """Progress, to stderr."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if passing or not text else "\n", file=sys.stderr, flush=True)
    elif text and not passing:
        print(text, file=sys.stderr, flush=True)


def as_json(rows: list[Row], broken: list[str]) -> str:
    """For programs."""
    return json.dumps({"rows": [asdict(row) for row in rows], "broken": broken}, ensure_ascii=False, indent=2)
