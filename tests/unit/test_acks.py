"""Acks: every settled delivery exactly once, no unsettled one ever."""

from hypothesis import given
from hypothesis import strategies as st

from workers.amqp.consumer import AckWindow


@given(
    st.lists(
        st.tuples(st.sampled_from(["deliver", "settle", "give back", "take"]), st.integers(0, 30)),
        max_size=200,
    )
)
def test_each_settled_delivery_is_acked_just_once(steps: list[tuple[str, int]]) -> None:
    window, next_tag = AckWindow(), 1
    open_tags: list[int] = []
    settled: set[int] = set()
    #: What the broker still waits for an ack of, as the broker sees it.
    outstanding: list[int] = []

    def take() -> None:
        acks = window.take()
        if acks.multiple:
            # The broker refuses a multiple ack of a tag that it does not wait for.
            assert acks.multiple in outstanding
            covered = [tag for tag in outstanding if tag <= acks.multiple]
            assert set(covered) <= settled
            for tag in covered:
                outstanding.remove(tag)
        for tag in acks.single:
            assert tag in settled
            outstanding.remove(tag)

    for what, number in steps:
        if what == "deliver":
            window.delivered(next_tag)
            open_tags.append(next_tag)
            outstanding.append(next_tag)
            next_tag += 1
        elif what == "take":
            take()
        elif open_tags:
            tag = open_tags.pop(number % len(open_tags))
            if what == "settle":
                settled.add(tag)
                window.settled(tag)
            else:
                outstanding.remove(tag)
                window.requeued(tag)
    take()
    assert set(outstanding) == set(open_tags)


def test_a_slow_delivery_holds_up_nobody() -> None:
    window = AckWindow()
    for tag in (1, 2, 3, 4):
        window.delivered(tag)
    for tag in (2, 3, 4):
        window.settled(tag)
    acks = window.take()
    assert (acks.multiple, acks.single) == (0, (2, 3, 4))
    window.settled(1)
    assert window.take().multiple == 1
