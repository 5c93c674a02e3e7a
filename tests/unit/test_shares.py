"""Dead letters by cause: the journal's counts, set right by the depth of the queue."""

import pytest

from workers.sampler import MOST_CAUSES, shares


@pytest.mark.parametrize(
    ("counts", "depth", "expected"),
    [
        ({}, 0, {"other": 0, "unknown": 0}),
        ({"101.001002 region": 3}, 3, {"101.001002 region": 3, "other": 0, "unknown": 0}),
        # Put there by hand, or by a version that did not count.
        ({"101.001002 region": 3}, 8, {"101.001002 region": 3, "other": 0, "unknown": 5}),
        # Taken away by hand: nobody knows which.
        ({"a": 30, "b": 10}, 4, {"a": 3, "b": 1, "other": 0, "unknown": 0}),
        ({"a": 30}, 0, {"a": 0, "other": 0, "unknown": 0}),
        ({"unknown": 2}, 5, {"unknown": 5, "other": 0}),
    ],
)
def test_counts_add_up_to_the_depth(
    counts: dict[str, int], depth: int, expected: dict[str, float]
) -> None:
    assert shares(counts, depth) == expected


def test_there_are_few_causes_however_many_there_were() -> None:
    found = shares({f"cause {number}": 1 + number for number in range(200)}, 20_100)
    assert len(found) == MOST_CAUSES + 2
    assert sum(found.values()) == 20_100
    assert found["cause 199"] == 200
