"""The kinds of faults, and how often each strikes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.faults.campaign.site import Site, Stage

S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Phase(Generic[S]):
    """A kind of fault, how often it strikes (seconds from, to), its share of the time, and what it
    needs.

    `strike` has the workers fail; `mend` repairs what was struck once they work again, where it is
    not whole by then. `network`: the workers reach their broker through a network that can be
    spoilt. `database`: their journal is in PostgreSQL.
    """

    name: str
    fault: str
    strike: Callable[[S], object]
    every: tuple[float, float]
    share: float
    network: bool = False
    database: bool = False
    mend: Callable[[S], object] = lambda _: None


PHASES: tuple[Phase[Site], ...] = (
    Phase("kill", "a worker killed (SIGKILL)", Site.kill, (1.0, 6.0), 0.3),
    Phase("broker", "broker restarted every 10 s", Site.restart_broker, (10.0, 10.0), 0.2),
    Phase(
        "network",
        "network to the broker: cut, silent, hanging",
        Site.spoil_network,
        (1.0, 8.0),
        0.15,
        network=True,
    ),
    Phase(
        "journal",
        "PostgreSQL: stopped, killed, locked, cut off",
        Site.spoil_journal,
        (1.0, 6.0),
        0.1,
        database=True,
    ),
    Phase(
        "cloud", "OpenStack: failing, lost and late answers", Site.spoil_answers, (0.5, 2.0), 0.1
    ),
    Phase("outage", "OpenStack down for 3 to 15 s", Site.take_cloud_down, (4.0, 10.0), 0.05),
    Phase("stop", "a worker stopped (SIGSTOP) for 2 to 12 s", Site.stop_a_while, (4.0, 8.0), 0.1),
    Phase(
        "version",
        "version 1.0.0 and this one in turn: killed, ended",
        Site.change_version,
        (2.0, 5.0),
        0.1,
        database=True,
    ),
)
