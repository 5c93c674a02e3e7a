"""Lists what is measured, and the aims that it is compared with."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.dry_run import dry_run
from tests.bench.fairness import fairness
from tests.bench.gateway import gateway
from tests.bench.journal_size import journal_size
from tests.bench.latency import half_load, single
from tests.bench.measure import Figures, figures
from tests.bench.real import real
from tests.bench.replays import replay
from tests.bench.rubbish import rubbish
from tests.bench.site import CONSOLE, REBOOT, Bench
from tests.bench.startup import startup
from tests.bench.waiting import waiting, waiting_projects


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One thing that is measured; `measure` raises where it cannot be.

    `rounds`: at most so many, of what takes long and differs little. `by_default`: also where it is
    not named.
    """

    measure: Callable[[Bench], Figures]
    rounds: int = 3
    by_default: bool = True


@dataclass(frozen=True, kw_only=True)
class Line:
    """One aim: a figure of a measurement (`name.figure`), as a ratio to that of another one
    (`beside`) of the same round, or alone.

    `unit` is that of the aim: "x", "%", "ms", "s", "MB". `at_least` tells the direction.
    `inverted`: the ratio is the other's to ours.
    """

    what: str
    of: str
    beside: str | None = None
    unit: str = "x"
    aim: float
    at_least: bool = False
    inverted: bool = False


def _in_flight(bench: Bench) -> Figures:
    settings = {"BENCH_SECONDS": "0.1", "ECS_PREFETCH": "400"}
    cost = bench.ours("tests.bench.echo_worker", bench.number(40000), CONSOLE, **settings)
    return figures(cost) | {"share": cost.rate / 4000 * 100}


#: In the sequence of a round.
MEASUREMENTS: dict[str, Measurement] = {
    "bare": Measurement(measure=lambda bench: figures(bench.bare(bench.number(40000)))),
    "celery": Measurement(
        measure=lambda bench: figures(bench.celery("echo", bench.number(6000), 8))
    ),
    "plain": Measurement(
        measure=lambda bench: figures(
            bench.ours("tests.bench.echo_worker", bench.number(40000), CONSOLE)
        )
    ),
    "journal": Measurement(
        measure=lambda bench: figures(
            bench.ours("tests.bench.echo_worker", bench.number(20000), REBOOT)
        )
    ),
    "celery-sdk": Measurement(
        measure=lambda bench: figures(
            bench.celery("server.action", int(1500 * max(bench.scale, 0.2)), 32)
        )
    ),
    "action": Measurement(
        measure=lambda bench: figures(bench.ours("workers run", bench.number(3000), REBOOT))
    ),
    "in-flight": Measurement(measure=_in_flight),
    "half-load": Measurement(measure=half_load),
    "single": Measurement(measure=single),
    "fairness": Measurement(measure=fairness),
    "waiting": Measurement(measure=waiting, rounds=1),
    "waiting-projects": Measurement(measure=waiting_projects, rounds=1),
    "startup": Measurement(measure=startup),
    "replay": Measurement(measure=replay),
    "dry-run": Measurement(measure=dry_run),
    "gateway": Measurement(measure=gateway),
    "rubbish": Measurement(measure=rubbish, rounds=1, by_default=False),
    "journal-size": Measurement(measure=journal_size, rounds=1, by_default=False),
    "real": Measurement(measure=real, rounds=1, by_default=False),
}

LINES = (
    Line(
        what="whole worker without journal: rate, to Celery's",
        of="plain.rate",
        beside="celery.rate",
        aim=10,
        at_least=True,
    ),
    Line(
        what="whole worker without journal: CPU, to the bare client's",
        of="plain.cpu",
        beside="bare.cpu",
        aim=1.8,
    ),
    Line(
        what="whole worker with journal: rate, to Celery's",
        of="journal.rate",
        beside="celery.rate",
        aim=6,
        at_least=True,
    ),
    Line(
        what="whole worker with journal: CPU, to the bare client's",
        of="journal.cpu",
        beside="bare.cpu",
        aim=3,
    ),
    Line(
        what="`server.action`, journal and updates: rate, to Celery's with the SDK's helpers",
        of="action.rate",
        beside="celery-sdk.rate",
        aim=5,
        at_least=True,
    ),
    Line(
        what="`server.action`, journal and updates: CPU, Celery's with the SDK's helpers to ours",
        of="action.cpu",
        beside="celery-sdk.cpu",
        aim=5,
        at_least=True,
        inverted=True,
    ),
    Line(
        what="400 in flight, 100 ms each: part of 4,000/s",
        of="in-flight.share",
        unit="%",
        aim=93,
        at_least=True,
    ),
    Line(
        what="2,000/s of 100 ms each, time to the result above the 100 ms: p99",
        of="half-load.p99",
        unit="ms",
        aim=15,
    ),
    Line(
        what="idle worker, a read, time to the result above Nova's: median",
        of="single.read_median",
        unit="ms",
        aim=3,
    ),
    Line(
        what="idle worker, a read, time to the result above Nova's: p99",
        of="single.read_p99",
        unit="ms",
        aim=10,
    ),
    Line(
        what="idle worker, a command with journal, time to the result above Nova's: median",
        of="single.command_median",
        unit="ms",
        aim=3,
    ),
    Line(
        what="idle worker, a command with journal, time to the result above Nova's: p99",
        of="single.command_p99",
        unit="ms",
        aim=10,
    ),
    Line(
        what="`os-stop` beside 5,000 reboots of another tenant, 100 ms a call: to an idle worker's",
        of="fairness.stop",
        beside="fairness.stop_idle",
        aim=1.5,
    ),
    Line(
        what="`server.list` beside 5,000 reboots of another tenant: to an idle worker's",
        of="fairness.list",
        beside="fairness.list_idle",
        aim=1.5,
    ),
    Line(what="10,000 orders waiting: memory", of="waiting.memory", unit="MB", aim=250),
    Line(
        what="10,000 orders waiting: OpenStack calls a second, to those of 100 waiting",
        of="waiting.calls",
        beside="waiting.calls_of_few",
        aim=1.2,
    ),
    Line(
        what="1,000 orders waiting in 500 projects: OpenStack calls a second, to those of 100 in 100",
        of="waiting-projects.calls",
        beside="waiting-projects.calls_of_few",
        aim=1.2,
    ),
    Line(what="from start to consuming", of="startup.seconds", unit="s", aim=1.2),
    Line(
        what="memory once it consumes, before the OpenStack SDK is imported",
        of="startup.memory",
        unit="MB",
        aim=60,
    ),
    Line(
        what="replay of 10,000, the command's start included: rate, to the bare publisher's",
        of="replay.command",
        beside="replay.plain",
        unit="%",
        aim=50,
        at_least=True,
    ),
    Line(
        what="gateway: CPU of a request, to a bare FastAPI handler's",
        of="gateway.cpu",
        beside="gateway.bare_cpu",
        aim=4,
    ),
    Line(
        what="gateway, 1,000 streams of updates: memory of each",
        of="gateway.streams_kB",
        unit="kB",
        aim=64,
    ),
    Line(what="`dead replay --dry-run` of 1,660", of="dry-run.seconds", unit="s", aim=5),
    Line(
        what="`server.list` of 100 on the real control plane: to its slowest call alone",
        of="real.list",
        beside="real.slowest",
        aim=1.15,
    ),
    Line(
        what="batch of 100 on the real control plane: to its calls, made bare and at once",
        of="real.batch",
        beside="real.bare_batch",
        aim=1.5,
    ),
)
