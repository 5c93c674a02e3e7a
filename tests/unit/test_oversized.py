"""Frames of bodies that are too large: counted and digested, never handed on; others as they come."""

import hashlib
from typing import Any

from pika import frame, spec

from workers.amqp.frames import BodyLimit, left_out_of

MOST = 1000


def header(channel: int, size: int) -> frame.Header:
    return frame.Header(channel, size, spec.BasicProperties(message_id=str(channel)))


def passed(limit: BodyLimit, *frames: Any) -> list[Any]:
    """What is handed on."""
    found = [limit.passed(one) for one in frames]
    return [one for one in found if not isinstance(one, frame.Heartbeat)]


def test_a_body_that_is_too_large_is_an_empty_one_with_its_size_and_digest() -> None:
    limit, parts = BodyLimit(MOST), [b"a" * 600, b"b" * 600, b"c" * 7]
    frames = [frame.Body(1, one) for one in parts]
    (only,) = passed(limit, header(1, 1207), *frames)
    body = b"".join(parts)
    assert (only.channel_number, only.body_size, only.properties.message_id) == (1, 0, "1")
    found = left_out_of(only.properties)
    assert found is not None
    assert (found.size, found.sha256) == (1207, hashlib.sha256(body).hexdigest())
    # The next message of the channel is as ever.
    after = [header(1, 3), frame.Body(1, b"abc")]
    assert passed(limit, *after) == after
    assert left_out_of(after[0].properties) is None


def test_channels_do_not_disturb_each_other() -> None:
    limit = BodyLimit(MOST)
    small = [header(2, MOST), frame.Body(2, b"x" * MOST)]
    frames = [
        header(1, 1500),
        small[0],
        frame.Body(1, b"y" * 750),
        small[1],
        frame.Body(1, b"y" * 750),
    ]
    assert passed(limit, *frames)[:2] == small
    assert len(passed(limit, header(1, 1), frame.Body(1, b"z"))) == 2


def test_a_channel_that_is_closed_over_a_body_begins_anew() -> None:
    limit = BodyLimit(MOST)
    closing = frame.Method(1, spec.Channel.Close(406, "gone"))
    assert passed(limit, header(1, 5000), frame.Body(1, b"x"), closing) == [closing]
    after = [header(1, 2), frame.Body(1, b"ab")]
    assert passed(limit, *after) == after
