"""Resume tokens, and publishers that need no access token."""

import pytest

from tests.support.envelopes import envelope
from workers.amqp.headers import RESUME_TOKEN_HEADER
from workers.identity import hash_of, new_resume_token
from workers.identity.requester import may_omit_token


def test_a_resume_token_is_long_and_never_the_same() -> None:
    words = {new_resume_token() for _ in range(100)}
    assert len(words) == 100
    assert all(len(word) >= 43 for word in words)
    assert len({hash_of(word) for word in words}) == 100
    assert not any(word in hash_of(word) for word in words)


def test_a_message_has_the_resume_token_of_its_header() -> None:
    word = new_resume_token()
    assert envelope({}, headers={RESUME_TOKEN_HEADER: word}).resume_token == word


@pytest.mark.parametrize("word", [None, "", 7, b"word", ["word"], {"a": 1}, "w" * 129, "wörd"])
def test_a_header_that_can_be_no_resume_token_is_ignored(word: object) -> None:
    assert envelope({}, headers={RESUME_TOKEN_HEADER: word}).resume_token is None


@pytest.mark.parametrize(
    ("user", "publishers", "may"),
    [
        ("billing", ("billing",), True),
        ("billing", ("console", "billing"), True),
        ("console", ("billing",), False),
        ("Billing", ("billing",), False),
        ("billing ", ("billing",), False),
        ("", ("billing",), False),
        (None, ("billing",), False),
        ("billing", (), False),
        (None, (), False),
    ],
)
def test_only_the_named_publishers_may_send_without_a_token(
    user: str | None, publishers: tuple[str, ...], may: bool
) -> None:
    assert may_omit_token(envelope({}, user_id=user), frozenset(publishers)) is may
