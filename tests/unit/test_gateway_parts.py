"""Parts of the gateway: places by tenant, kept updates, what a request says."""

import re
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway import events
from gateway.admission import Account, Budget, Places
from gateway.events import Event, Subscriber, Updates, update_event
from gateway.failures import HttpFailure
from gateway.requests import message_id_of
from gateway.routes import ROUTES
from gateway.server import listen
from sandbox.processes import free_ports
from tests.support import REPOSITORY
from workers.settings import split_address


def take(places: Places, stack: ExitStack, tenant: str) -> int:
    """Take as many places as a tenant gets."""
    number = 0
    while True:
        try:
            stack.enter_context(places.one(tenant, "too_many_requests"))
        except HttpFailure:
            return number
        number += 1


def test_a_tenant_has_as_many_places_as_are_free_and_one_that_comes_anew_has_some() -> None:
    places = Places(1000)
    with ExitStack() as stack:
        assert [take(places, stack, tenant) for tenant in "abcd"] == [500, 250, 125, 63]
        assert not places.idle.is_set()
    assert places.taken == 0
    assert places.idle.is_set()
    with ExitStack() as stack:
        assert take(places, stack, "a") == 500


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_places_are_never_more_than_there_are_and_come_back(steps: list[tuple[str, bool]]) -> None:
    places, held = Places(7), list[ExitStack]()
    for tenant, wants in steps:
        if wants:
            stack = ExitStack()
            try:
                stack.enter_context(places.one(tenant, "too_many_requests"))
            except HttpFailure:
                continue
            held.append(stack)
        elif held:
            held.pop().close()
        assert places.taken == len(held) <= 7
    for stack in held:
        stack.close()
    assert places.taken == 0


def test_bytes_of_bodies_are_bounded_and_come_back() -> None:
    budget = Budget(100)
    with budget.account("a") as one, budget.account("a") as two, budget.account("b") as other:
        budget.charge(one, 30)
        budget.charge(two, 20)
        # One tenant's bodies leave room for another's.
        with pytest.raises(HttpFailure) as refused:
            budget.charge(two, 1)
        assert (refused.value.status, refused.value.refused.reason) == (503, "too_many_bytes")
        budget.charge(other, 25)
        with pytest.raises(HttpFailure):
            budget.charge(other, 1)
    budget.charge(Account("a"), 100)


def event(number: int, tenant: str = "a", size: int = 10, resource: str = "server") -> Event:
    return update_event(f"{tenant}-{number}", tenant, resource, str(number), b"x" * size)


def heard(one: Subscriber) -> bytes:
    return one.take()


@pytest.fixture
def updates() -> Updates:
    return Updates()


def resumed(updates: Updates, after: str, tenant: str = "a", resource: str | None = None) -> bytes:
    with updates.subscribed(tenant, Subscriber(resource, None), after) as one:
        return heard(one)


async def test_a_stream_is_resumed_after_the_update_that_it_names(updates: Updates) -> None:
    kept = [event(number, resource="image" if number == 2 else "server") for number in range(4)]
    for one in kept:
        updates.publish(one)
    updates.publish(event(0, "b"))
    assert resumed(updates, "a-1") == kept[2].sent + kept[3].sent
    assert resumed(updates, "a-1", resource="server") == kept[3].sent
    assert resumed(updates, "a-3") == b""
    # Another tenant's update is nothing that one could have heard.
    assert b"unknown_last_event_id" in resumed(updates, "b-0")
    updates.lose()
    assert b"unknown_last_event_id" in resumed(updates, "a-1")


async def test_an_update_that_comes_again_is_told_once(updates: Updates) -> None:
    with updates.subscribed("a", Subscriber(None, None), None) as one:
        updates.publish(event(1))
        updates.publish(event(1))
        assert heard(one) == event(1).sent


async def test_what_is_kept_is_bounded_by_number_bytes_and_age(
    updates: Updates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(events.KEPT + 5):
        updates.publish(event(number))
    assert b"unknown" in resumed(updates, "a-4")
    assert b"unknown" not in resumed(updates, "a-5")
    # A tenant's flood takes no other tenant's updates, until all are too many bytes.
    updates.publish(event(1, "b"))
    large = events.KEPT_BYTES // 4
    for number in range(5):
        updates.publish(event(number, "c", size=large))
    assert b"unknown" in resumed(updates, "b-1", "b")
    assert b"unknown" not in resumed(updates, "c-2", "c")
    newest = event(9, "d")
    updates.publish(newest)
    updates.expire(newest.at + events.KEPT_SECONDS - 1)
    assert b"unknown" not in resumed(updates, "d-9", "d")
    updates.expire(newest.at + events.KEPT_SECONDS + 1)
    assert b"unknown" in resumed(updates, "d-9", "d")


async def test_a_reader_too_far_behind_is_cut_off_and_nothing_is_kept_for_it(
    updates: Updates,
) -> None:
    cut: list[bool] = []
    with updates.subscribed("a", Subscriber(None, None), None) as one:
        one.abort = lambda: cut.append(True)
        number = 0
        while not cut:
            updates.publish(event(number, size=1000))
            number += 1
        assert number <= events.MAX_BEHIND // 1000 + 1
        updates.publish(event(number))
        assert (cut, updates.cut, len(one.waiting)) == ([True], 1, 0)


@pytest.mark.parametrize("key", ["a", "~" * 255, '"quoted"', "!#$"])
def test_an_idempotency_key_is_printable_ascii(key: str) -> None:
    headers = Headers(raw=[(b"idempotency-key", key.encode())] * 2)
    assert message_id_of(headers) == key


@pytest.mark.parametrize("keys", [[""], ["a b"], ["é"], ["x" * 256], ["a", "b"], ["a\x7f"]])
def test_any_other_idempotency_key_is_refused_by_its_name(keys: list[str]) -> None:
    headers = Headers(raw=[(b"idempotency-key", key.encode("latin-1")) for key in keys])
    with pytest.raises(HttpFailure) as refused:
        message_id_of(headers)
    assert refused.value.refused.subject == "Idempotency-Key"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8081", ("127.0.0.1", 8081)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("", None),
        ("8081", None),
        (":8081", None),
        ("::1:8081", None),
        ("[::1]", None),
        ("x:0", None),
        ("x:65536", None),
        ("x:+1", None),
        ("x:١", None),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(ValueError, match="host:port"):
            split_address(text)
    else:
        assert split_address(text) == address


def test_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off where a socket has its protocol; an answer in two parts
    would be 40 ms late otherwise.
    """
    with listen("127.0.0.1", *free_ports(1)) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_the_page_of_the_api_has_every_url_and_every_reason() -> None:
    page = (REPOSITORY / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
    urls = {f"{one.method} {one.path.replace(':path', '')}" for one in ROUTES}
    assert {one for one in urls if f"`{one}`" not in page} == set()
    source = "".join(one.read_text() for one in (REPOSITORY / "gateway").glob("*.py"))
    reasons = set(re.findall(r'(?:reason=|busy\(|broker_away\(|"gap", |finish\()"(\w+)"', source))
    assert len(reasons) > 15
    assert {one for one in reasons if f"`{one}`" not in page} == set()
