"""`make cluster` for some seconds: a leader is killed, a node is cut off, and nothing is lost or done
twice.
"""

import random
from collections.abc import Iterator

import pytest

from sandbox.cluster import Cluster
from tests.cluster.phases import PHASES
from tests.cluster.run import run_phase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 16


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes; without root and network namespaces the error says what is missing."""
    with Cluster() as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("name", ["leader", "cut"])
def test_a_node_that_is_lost_costs_nothing(cluster: Cluster, name: str) -> None:
    (phase,) = (one for one in PHASES if one.name == name)
    # How long it takes is measured by `make cluster`: other tests run beside this one.
    row, broken = run_phase(cluster, phase, 1.0, random.Random(SEED), pace=0.1, recovery=90)
    assert broken == []
    assert row.injected
    assert row.results
    assert row.inputs == row.results + row.dead_lettered
    assert (row.doubled, row.lost) == (0, 0)
