"""RabbitMQ's delivery limit on a cluster (76 to 78): each fault is shown once, without other load.

The limit is in force for all queues: RabbitMQ 4's own, and on an earlier version a policy's. Only
the order result is shown with what the documentation has set: on RabbitMQ 4 the policy that lifts
the limit; an earlier version refuses that one, and has a limit and a dead-letter exchange instead.
"""

import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from sandbox.cluster import Cluster
from sandbox.postgres import PrivatePostgres
from tests.cluster.run import RECOVERY, ClusterRow
from tests.cluster.stage import ClusterStage, cluster_stage, limits_by_itself
from tests.faults.campaign.run import Tell
from tests.faults.campaign.traffic import PARAMETER
from tests.support.giving_back import LIMIT, give_back, limit_deliveries
from tests.support.invariants import FAILED, await_ends, report
from tests.support.kinds import KINDS, Asked, command
from tests.support.lasting import LastingRequester
from tests.support.names import DEAD_QUEUE, NAMES, ORDERS_QUEUE, SERVERS_QUEUE, UNDELIVERED_QUEUE
from tests.support.waiting import eventually
from workers.journal.database import open_engine
from workers.journal.owners import is_alive
from workers.pipeline.suspects import SUSPECT_AFTER

#: Workers that die with the same order in hand: more than the limit.
DEATHS = LIMIT + 2
#: The death before which the leader of the orders' queue is killed, too.
_WITHOUT_LEADER = 12
#: Seconds for which the journal is away: a message that was given back every two seconds would
#: reach the limit.
AWAY = 50.0
#: Seconds for a worker to have an order in hand, or for an order to end.
_PATIENCE = 120.0
#: Seconds between two looks at an order that a worker has in hand.
_BETWEEN = 0.5


@dataclass
class Shown:
    """Holds what a trial asked for, how often it struck, and the seconds from the fault's end until
    everything was answered. `dead_lettered`: message ids that must be in `ecs.dead`.
    """

    injected: int
    asked: Sequence[Asked]
    recovered: float
    dead_lettered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trial:
    """A fault and how it is shown; `limited`: RabbitMQ's limit of 20 is in force for all queues."""

    name: str
    fault: str
    show: Callable[[ClusterStage, LastingRequester], Shown]
    limited: bool = True


def kill_22_workers(stage: ClusterStage, requester: LastingRequester) -> Shown:
    """Kill 22 workers, each of which has the same order in hand; two more orders are in hand with
    it until a worker carries out only one of those whose workers died. The leader of the orders'
    queue dies with one of the workers.
    """
    tenant, cloud, workshop = stage.workshop.tenant(), stage.cloud, stage.workshop
    asked = [one.ask(tenant, cloud) for one in KINDS if one.name in ("resize", "extend", "confirm")]
    first, *others = asked
    cloud.fault("virt.finish_migration", match=server_of(first), held=True)
    for one in others:
        (volume,) = tenant.volumes(server_of(one))
        cloud.fault("volume.extend_volume", match=volume["id"], held=True)
    for one in asked:
        one.publish(requester)
    worker = workshop.worker(ECS_RETRY_DELAYS="1")
    for death in range(DEATHS):
        together = asked if death < SUSPECT_AFTER else [first]
        for one in together:
            eventually(lambda: is_in_hand(workshop.folder, one, death), _PATIENCE)  # noqa: B023
        if death == _WITHOUT_LEADER:
            stage.kill_leader()
        worker.kill()
        if death == SUSPECT_AFTER - 1:
            cloud.clear_faults("volume.")
        if death == _WITHOUT_LEADER + 1:
            stage.mend()
        worker = workshop.worker(wait=False, ECS_RETRY_DELAYS="1")
    # What is measured is the worker's time, not the one in which the program starts.
    worker.wait_ready(_PATIENCE)
    began = time.monotonic()
    eventually(lambda: is_in_hand(workshop.folder, first, DEATHS), _PATIENCE)
    cloud.clear_faults()
    requester.order_result_of(first.message_id, _PATIENCE)
    stage.workers = [worker]
    return Shown(DEATHS, asked, time.monotonic() - began)


def take_the_journal_away(stage: ClusterStage, requester: LastingRequester) -> Shown:
    """Stop the journal's database while `ecs.undelivered` has an order and a command that the
    broker gave up on, which wait, and commands that nobody knows, which are answered without it.
    """
    workshop, tenant = stage.workshop, stage.workshop.tenant()
    order, reboot = (
        next(one for one in KINDS if one.name == name).ask(tenant, stage.cloud)
        for name in ("extend", "reboot")
    )
    told: dict[str, Any] = {"effect": "", "finals": {}, "calls": (), "fields": {}}
    unknown = [command("unknown", "server.nonsense", code=PARAMETER, **told) for _ in range(3)]
    with PrivatePostgres() as database:
        workshop.settings["ECS_JOURNAL_URL"] = database.add_database(stage.vhost.replace("-", "_"))
        stage.workers = [workshop.worker(), workshop.worker()]
        database.stop_immediately()
        for one in unknown:
            one.publish(requester)
        for queue, one in ((ORDERS_QUEUE, order), (SERVERS_QUEUE, reboot)):
            eventually(lambda: requester.consumers(queue) == 0, _PATIENCE)  # noqa: B023
            one.publish(requester)
            give_back(stage.urls[0], queue, LIMIT + 1)
        for one in unknown:
            requester.result_of(one.message_id, _PATIENCE)
        eventually(lambda: requester.depth(UNDELIVERED_QUEUE) == 2, _PATIENCE)
        requester.listen(AWAY)
        assert requester.depth(UNDELIVERED_QUEUE) == 2
        began = time.monotonic()
        database.start()
        requester.order_result_of(order.message_id, _PATIENCE)
        requester.result_of(reboot.message_id, _PATIENCE)
        took = time.monotonic() - began
        asked = [*unknown, given_up(order), given_up(reboot)]
        eventually(lambda: requester.depth(DEAD_QUEUE) == len(asked), _PATIENCE)
        # While there is a database.
        broken = end_well(stage)
    assert not broken, broken
    executed = [one for one in stage.cloud.executed() if "/action reboot" in one or "extend" in one]
    assert not executed, executed
    return Shown(1, asked, took, frozenset(one.message_id for one in asked))


def given_up(asked: Asked) -> Asked:
    """The same where nothing is done, and it is answered that it failed."""
    finals = {("order", order_id_of(asked)): "failed"} if asked.is_order else {}
    return replace(asked, code=FAILED, finals=finals, calls=(), actions={}, holds=lambda: True)


def give_a_result_back(stage: ClusterStage, requester: LastingRequester) -> Shown:
    """Give an order's result back 21 times; it is in its queue again, or is put back there from
    `ecs.dead`.
    """
    url, results = stage.urls[0], NAMES.order_results_queue
    workshop = stage.workshop
    # By the policy of the stage.
    is_lifted = limits_by_itself(stage.cluster)
    if not is_lifted:
        more = {"dead-letter-exchange": NAMES.undelivered_exchange}
        limit_deliveries(stage.cluster, url, r"^ecs\.order-results$", **more)
    (order,) = (one.ask(workshop.tenant(), stage.cloud) for one in KINDS if one.name == "extend")
    stage.workers = [workshop.worker(), workshop.worker()]
    order.publish(requester)
    result = requester.order_result_of(order.message_id, _PATIENCE)
    eventually(lambda: requester.depth(results) == 1, _PATIENCE)
    assert give_back(url, results, LIMIT + 1) == 1
    began = time.monotonic()
    eventually(lambda: requester.depth(results if is_lifted else DEAD_QUEUE) == 1, _PATIENCE)
    took = time.monotonic() - began
    if not is_lifted:
        (letter,) = json.loads(workshop.command("dead", "list", "-o", "json").stdout)
        replayed = workshop.command("dead", "replay", "--id", letter["id"], "--yes")
        assert replayed.returncode == 0, replayed.stderr
    eventually(lambda: requester.depth(results) == 1, _PATIENCE)
    assert requester.take(results) == {result.properties["message_id"]}
    return Shown(LIMIT + 1, [order], took)


TRIALS = (
    Trial("deaths", "22 workers killed with the same order in hand", kill_22_workers),
    Trial("undelivered", "ecs.undelivered while the journal is away", take_the_journal_away),
    Trial("given-back", "an order result given back 21 times", give_a_result_back, limited=False),
)


def run_trials(
    trials: Iterable[Trial], seed: int, tell: Tell
) -> Iterator[tuple[ClusterRow, list[str]]]:
    """Each trial's row, and what it has shown to be broken; all on one cluster."""
    with ExitStack() as stack:
        cluster: Cluster | None = None
        for trial in trials:
            cluster = cluster or stack.enter_context(Cluster())
            tell(trial.fault, False)
            yield run_trial(cluster, trial, random.Random(seed), tell)


def run_trial(
    cluster: Cluster, trial: Trial, chance: random.Random, tell: Tell
) -> tuple[ClusterRow, list[str]]:
    """Show one fault, and look at everything that was asked for."""
    folder = Path(tempfile.mkdtemp(prefix="ecs-cluster-"))
    with cluster_stage(cluster, folder, chance, 0.1, workers=0, limited=trial.limited) as stage:
        requester = stage.requester()
        try:
            shown = trial.show(stage, requester)
            await_ends(requester, shown.asked)
        except BaseException:
            tell(f"journal and logs are in {folder}", False)
            raise
        broken = end_well(stage)
        requester.listen(1.0)
        executed = stage.cloud.executed()
        seen = report(requester.heard, list(shown.asked), stage.workshop.tenant(), executed)
        dead = requester.take(DEAD_QUEUE)
        requester.close()
    broken += seen.broken
    broken += [f"not in {DEAD_QUEUE}: {one}" for one in sorted(shown.dead_lettered - dead)]
    broken += [f"in {DEAD_QUEUE} without need: {one}" for one in sorted(dead - shown.dead_lettered)]
    if shown.recovered > RECOVERY:
        broken.append(f"it took {shown.recovered:.0f} s until a request was answered")
    if broken:
        tell(f"journal and logs are in {folder}", False)
    else:
        shutil.rmtree(folder)
    counts = (shown.injected, seen.inputs, seen.results, len(dead))
    lost, took = seen.lost + len(shown.dead_lettered - dead), round(shown.recovered, 1)
    row = ClusterRow(trial.fault, cluster.version(), *counts, seen.duplicate_effects, lost, took)
    return row, broken


def end_well(stage: ClusterStage) -> list[str]:
    """Have the workers drain; a line for each that did not end well."""
    workers, stage.workers = stage.workers, []
    return ["a worker did not end well at SIGTERM" for one in workers if one.terminate() != 0]


def is_in_hand(folder: Path, order: Asked, lost: int) -> bool:
    """Tell whether a living worker has an order, and has had it for a moment, and the journal has
    counted so many workers that died with it.

    A worker may let go of it at once: where too many died with it, it waits first.
    """
    claim = _claim(folder, order, lost)
    time.sleep(_BETWEEN)
    return claim is not None and _claim(folder, order, lost) == claim


def _claim(folder: Path, order: Asked, lost: int) -> str | None:
    journal = folder / "journal.db"
    if not journal.exists():
        return None
    statement = (
        "SELECT owner, claim FROM requests"
        " WHERE name = ? AND state = 'running' AND owner IS NOT NULL AND lost_workers = ?"
    )
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        row = connection.execute(statement, (order_id_of(order), lost)).fetchone()
    # Its lock is held for as long as it lives.
    return row[1] if row is not None and is_alive(_engine(journal), row[0]) else None


@cache
def _engine(journal: Path) -> Engine:
    return open_engine(f"sqlite:///{journal}")


def order_id_of(order: Asked) -> str:
    """The id of an order."""
    (found,) = (name for kind, name in order.finals if kind == "order")
    return found


def server_of(order: Asked) -> str:
    """The id of the server of an order."""
    (found,) = (name for kind, name in order.finals if kind == "server")
    return found
