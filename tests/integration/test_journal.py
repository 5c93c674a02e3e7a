"""The journal on SQLite and on PostgreSQL: who may act, what is known, what survives."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, text

from handlers.effects.waits import Behind, ResourceState, Wait
from messages.results import WaitReason
from workers.identity import hash_of
from workers.journal import (
    Ahead,
    Begun,
    ClaimLost,
    ContentConflict,
    HeldElsewhere,
    History,
    HolderState,
    Journal,
    JournalError,
    Kind,
    Known,
    Look,
    Looks,
    NewRequest,
    Resumed,
    State,
)
from workers.journal.database import _config, current_revision

REQUEST = NewRequest("order:p:17", "17", Kind.ORDER, "order.changeConfigure", "p", "digest", 1000.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    url: str = request.getfixturevalue("postgres").url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    found = Journal(url)
    await found.open()
    yield found
    await found.close()


async def begun(journal: Journal) -> Begun:
    outcome = await journal.begin(REQUEST)
    assert isinstance(outcome, Begun)
    return outcome


async def test_a_finished_request_is_known_with_its_result(journal: Journal) -> None:
    claim = (await begun(journal)).claim
    await journal.finish(claim, {"code": 200}, [{"final": True}])
    known = await journal.begin(REQUEST)
    assert known == Known({"code": 200}, [{"final": True}], settled=False)
    await journal.settle(REQUEST.key)
    assert await journal.begin(REQUEST) == Known({"code": 200}, [{"final": True}], settled=True)
    (found,) = await journal.find("17")
    assert (found.state, found.deliveries, found.result) == (State.SETTLED, 3, {"code": 200})


async def test_the_same_key_with_another_content_conflicts(journal: Journal) -> None:
    await begun(journal)
    assert await journal.begin(replace(REQUEST, digest="another")) == ContentConflict()


async def test_effects_are_found_by_whoever_goes_on(journal: Journal) -> None:
    claim = (await begun(journal)).claim
    await journal.intend(claim, "resize:1", "2026-11-23T10:00:00Z")
    await journal.record(claim, "resize:1", {"status": 202}, "req-1")
    await journal.intend(claim, "extend:2", None)
    await journal.remember(claim, "plan", [{"a": 1}])
    await journal.release(claim, 1)
    resumed = await journal.begin(replace(REQUEST, received_at=2000.0))
    assert isinstance(resumed, Resumed)
    assert (resumed.attempts, resumed.received_at) == (1, 1000.0)
    assert resumed.effects["resize:1"].outcome == {"status": 202}
    assert resumed.effects["resize:1"].marker == "2026-11-23T10:00:00Z"
    assert resumed.effects["resize:1"].request_id == "req-1"
    assert resumed.effects["extend:2"].outcome is None
    assert resumed.effects["plan"].outcome == {"value": [{"a": 1}]}


async def test_who_has_lost_the_claim_may_write_no_more(journal: Journal) -> None:
    old = (await begun(journal)).claim
    await journal.release(old)
    taken = await journal.begin(REQUEST)
    assert isinstance(taken, Resumed)
    for write in (
        journal.intend(old, "resize:1", None),
        journal.record(old, "resize:1", {}, None),
        journal.finish(old, {"code": 500}, []),
    ):
        with pytest.raises(ClaimLost):
            await write
    await journal.finish(taken.claim, {"code": 200}, [])


async def test_a_request_of_a_living_worker_is_left_to_it_and_of_a_dead_one_taken_over(
    journal: Journal, url: str
) -> None:
    other = Journal(url)
    await other.open()
    claim = (await begun(other)).claim
    await other.intend(claim, "os-stop:1", "then")
    outcome = await journal.begin(REQUEST)
    assert isinstance(outcome, HeldElsewhere)
    await other.close()
    resumed = await journal.begin(REQUEST)
    assert isinstance(resumed, Resumed)
    assert set(resumed.effects) == {"os-stop:1"}


async def test_a_thousand_requests_at_once_are_each_begun_once(journal: Journal) -> None:
    requests = [replace(REQUEST, key=f"k{number}", name=f"n{number}") for number in range(1000)]
    outcomes = await asyncio.gather(*(journal.begin(one) for one in requests))
    assert all(isinstance(one, Begun) for one in outcomes)
    claims = [one.claim for one in outcomes if isinstance(one, Begun)]
    await asyncio.gather(*(journal.finish(claim, {"code": 200}, []) for claim in claims))
    again = await asyncio.gather(*(journal.begin(one) for one in requests))
    assert all(isinstance(one, Known) for one in again)


async def test_settled_commands_are_forgotten_and_orders_kept(journal: Journal) -> None:
    for kind in Kind:
        outcome = await journal.begin(
            replace(REQUEST, key=kind.value, name=kind.value, kind=kind, received_at=1.0)
        )
        assert isinstance(outcome, Begun)
        await journal.finish(outcome.claim, {}, [])
        await journal.settle(kind.value)
    await asyncio.sleep(0.05)
    assert await journal.prune(commands_older_than=0.01) == 1
    assert await journal.find("command") == []
    assert len(await journal.find("order")) == 1


async def test_migrating_twice_is_migrating_once(journal: Journal, url: str) -> None:
    await begun(journal)
    other = Journal(url)
    await other.open()
    assert len(await other.find("17")) == 1
    await other.close()


async def test_a_journal_that_a_later_version_has_migrated_is_used_as_it_is(
    journal: Journal, url: str
) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    restarted = Journal(url)
    await restarted.open()
    assert isinstance(await restarted.begin(REQUEST), Begun)
    await restarted.close()
    assert current_revision(engine) == "9999"
    # Nor do its commands refuse it: an upgrade may be taken back.
    History(url).open().close()
    engine.dispose()


async def test_a_database_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path}/no/such/folder/j.db",
        "postgresql+psycopg://nobody@127.0.0.1:1/none",
    ):
        with pytest.raises(JournalError) as caught:
            await Journal(url).open()
        assert "\n" not in str(caught.value)


async def test_what_cannot_be_written_does_not_keep_the_rest_from_the_disk(
    journal: Journal,
) -> None:
    half_a_pair = replace(REQUEST, key="order:p:18", name="\ud800")
    bad, good = journal.begin(half_a_pair), journal.begin(REQUEST)
    with pytest.raises(JournalError, match="cannot be written"):
        await asyncio.wait_for(bad, 10)
    assert isinstance(await asyncio.wait_for(good, 10), Begun)
    assert journal.trouble is None


# What comes back without its token.


async def _authenticated_tenant(
    journal: Journal, resume_token_hash: str, **changed: str
) -> str | None:
    asked = {"name": REQUEST.name, "digest": REQUEST.digest} | changed
    return await journal.authenticated_tenant(
        Kind.ORDER, asked["name"], asked["digest"], resume_token_hash
    )


async def test_a_request_is_known_again_by_the_pass_that_its_release_wrote(
    journal: Journal,
) -> None:
    claim = (await begun(journal)).claim
    assert await _authenticated_tenant(journal, hash_of("word")) is None
    await journal.release(claim, 1, hash_of("word"))
    assert await _authenticated_tenant(journal, hash_of("word")) == "p"
    assert await _authenticated_tenant(journal, hash_of("other")) is None
    assert await _authenticated_tenant(journal, hash_of("word")[:63]) is None
    assert await _authenticated_tenant(journal, "") is None
    assert await _authenticated_tenant(journal, hash_of("word"), digest="another content") is None
    assert await _authenticated_tenant(journal, hash_of("word"), name="18") is None
    assert (
        await journal.authenticated_tenant(
            Kind.COMMAND, REQUEST.name, REQUEST.digest, hash_of("word")
        )
        is None
    )


async def test_earlier_passes_count_until_there_are_too_many(journal: Journal) -> None:
    """The first copy may still lie in a retry queue when a redelivery of the message is put off
    anew.
    """
    for number in range(9):
        outcome = await journal.begin(REQUEST)
        assert isinstance(outcome, (Begun, Resumed))
        await journal.release(outcome.claim, 1, hash_of(str(number)))
    assert [await _authenticated_tenant(journal, hash_of(str(number))) for number in range(9)] == [
        None,
        *["p"] * 8,
    ]
    outcome = await journal.begin(REQUEST)
    assert isinstance(outcome, Resumed)
    # Said again, it is the newest, and no other is forgotten for it.
    await journal.release(outcome.claim, 0, hash_of("1"))
    assert [
        await _authenticated_tenant(journal, hash_of(str(number))) for number in range(1, 9)
    ] == ["p"] * 8


async def test_a_copy_of_what_another_worker_is_at_may_go_away_and_come_back(
    journal: Journal,
) -> None:
    claim = (await begun(journal)).claim
    await journal.add_resume_token(REQUEST.key, hash_of("word"))
    assert await _authenticated_tenant(journal, hash_of("word")) == "p"
    await journal.finish(claim, {"code": 200}, [])
    assert await _authenticated_tenant(journal, hash_of("word")) == "p", "it finds the result, then"


async def test_a_journal_of_the_first_revision_is_migrated(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0001")
        connection.execute(
            text(
                "INSERT INTO requests (key, name, kind, operation, tenant, digest, state, claim, attempts, deliveries,"
                " received_at, updated_at)"
                " VALUES ('order:p:17', '17', 'order', 'o', 'p', 'digest', 'running', 'c', 0, 1, 1, 1)"
            )
        )
    engine.dispose()
    found = Journal(url)
    await found.open()
    outcome = await found.begin(REQUEST)
    assert isinstance(outcome, Resumed)
    await found.release(outcome.claim, 1, hash_of("word"))
    assert await _authenticated_tenant(found, hash_of("word")) == "p"
    await found.close()


# What a request waits for.

RETRY = Wait(WaitReason.RETRY, 1.0, 31.0, cause="http_503", detail="overloaded")
VOLUME = Wait(
    WaitReason.RESOURCE, 2.0, resource=ResourceState("volume", "v-1", "backing-up"), others=1
)


async def _waits_for(journal: Journal, key: str = REQUEST.key) -> Wait | None:
    return (await journal.with_keys([key]))[key].wait


async def test_what_a_request_waits_for_is_known_until_it_goes_on(journal: Journal) -> None:
    claim = (await begun(journal)).claim
    assert await _waits_for(journal) is None
    await journal.note_wait(claim, VOLUME)
    assert await _waits_for(journal) == VOLUME
    await journal.note_wait(claim, None)
    assert await _waits_for(journal) is None
    await journal.release(claim, 1, hash_of("word"), wait=RETRY)
    assert await _waits_for(journal) == RETRY
    # A note that comes late changes nothing any more.
    await journal.note_wait(claim, VOLUME)
    assert await _waits_for(journal) == RETRY
    again = await journal.begin(REQUEST)
    assert isinstance(again, Resumed)
    assert await _waits_for(journal) is None
    await journal.note_wait(claim, VOLUME)
    assert await _waits_for(journal) is None
    await journal.note_wait(again.claim, VOLUME)
    await journal.finish(again.claim, {"code": 200}, [])
    assert await _waits_for(journal) is None


async def test_a_note_and_a_release_of_one_group_leave_the_releases(journal: Journal) -> None:
    first, other = [await journal.begin(one) for one in (REQUEST, _another(18))]
    assert isinstance(first, Begun)
    assert isinstance(other, Begun)
    # The second one's note comes first: all notes of the group are written before all releases.
    written = [
        journal.note_wait(other.claim, VOLUME),
        journal.release(first.claim, 1, hash_of("word"), wait=RETRY),
        journal.note_wait(first.claim, VOLUME),
    ]
    await asyncio.gather(*written)
    assert (await _waits_for(journal), await _waits_for(journal, "order:p:18")) == (RETRY, VOLUME)


async def test_who_waits_for_a_lock_is_behind_the_request_right_ahead(journal: Journal) -> None:
    for number in (1, 2, 3):
        await _lined_up(journal, number, "server-1")
    assert await _waits_for(journal, "order:p:1") is None
    second, third = [await _waits_for(journal, f"order:p:{number}") for number in (2, 3)]
    assert second is not None
    assert third is not None
    assert (second.reason, second.others, third.others) == (WaitReason.TURN, 0, 1)
    assert second.behind == Behind("order:p:1", "1", "order.changeConfigure", "p")
    assert third.behind == Behind("order:p:2", "2", "order.changeConfigure", "p")
    assert third.since == pytest.approx(time.time(), abs=5)


async def test_an_overview_tells_of_each_unfinished_request_what_it_waits_for(
    journal: Journal, url: str
) -> None:
    dead = Journal(url)
    await dead.open()
    for number in (1, 2, 3):
        await _lined_up(journal, number, "server-1", "server-2")
    left = await dead.begin(_another(4))
    waiting, done, settled = [await journal.begin(_another(number)) for number in (5, 6, 7)]
    assert isinstance(left, Begun)
    assert isinstance(waiting, Begun)
    assert isinstance(done, Begun)
    assert isinstance(settled, Begun)
    await dead.close()
    await journal.release(waiting.claim, 1, hash_of("word"), wait=RETRY)
    await journal.finish(done.claim, {"code": 200}, [])
    await journal.finish(settled.claim, {"code": 200}, [])
    await journal.settle(settled.claim.key)
    history = History(url).open()
    found = {one.name: one for one in history.unfinished_requests()}
    assert found.keys() == {"1", "2", "3", "4", "5", "6"}
    assert {name: one.wait.reason if one.wait else None for name, one in found.items()} == {
        "1": None,
        "2": WaitReason.TURN,
        "3": WaitReason.TURN,
        "4": WaitReason.WORKER,
        "5": WaitReason.RETRY,
        "6": None,
    }
    assert [name for name, one in found.items() if one.is_answered] == ["6"]
    history.close()


async def test_retries_are_kept_and_those_in_a_row_for_one_reason_are_one(
    journal: Journal, url: str
) -> None:
    claim = (await begun(journal)).claim
    for until in (10.0, 20.0):
        turn = Wait(WaitReason.TURN, until - 5, until)
        await journal.release(claim, 0, hash_of("word"), wait=turn)
        claim = (await _resumed(journal)).claim
    await journal.release(claim, 1, hash_of("word"), wait=RETRY)
    claim = (await _resumed(journal)).claim
    # That a token is added alone, or nothing is waited for, is no retry.
    await journal.release(claim, 0)
    history = History(url).open()
    turns, failed = history.retries(REQUEST.key)
    assert (turns.times, turns.wait.until, turns.wait.reason) == (2, 20.0, WaitReason.TURN)
    assert (failed.times, failed.wait) == (1, RETRY)
    history.close()


async def _resumed(journal: Journal) -> Resumed:
    outcome = await journal.begin(REQUEST)
    assert isinstance(outcome, Resumed)
    return outcome


async def test_looks_into_a_queue_are_counted_for_all_operators(journal: Journal, url: str) -> None:
    mine, theirs = Looks(url), Looks(url)
    assert mine.last("ecs.orders") is None
    for look in (Look("ecs.orders", 5.0, 3, 1, None), Look("ecs.orders", 6.0, 4, 2, 1.0)):
        mine.note(look)
        assert theirs.last("ecs.orders") == look
    for one in (mine, theirs):
        one.close()


async def test_a_request_of_a_dead_worker_waits_for_another(url: str, journal: Journal) -> None:
    dead = Journal(url)
    await dead.open()
    claim = (await begun(dead)).claim
    await dead.note_wait(claim, VOLUME)
    assert await _waits_for(journal) == VOLUME
    await dead.close()
    found = await _waits_for(journal)
    assert found is not None
    assert found.reason is WaitReason.WORKER


#: How the version before takes a request over, and releases it.
_FORMER = (
    "UPDATE requests SET owner = :owner, claim = :claim, updated_at = 5"
    " WHERE key = :key AND state = 'running'",
    "UPDATE requests SET owner = NULL, attempts = attempts + 1, updated_at = 6 WHERE key = :key",
)


async def test_a_note_ends_where_a_worker_of_the_version_before_goes_on(
    url: str, journal: Journal
) -> None:
    claim = (await begun(journal)).claim
    await journal.release(claim, 1, hash_of("word"), wait=RETRY)
    former, engine = Journal(url), create_engine(url)
    await former.open()
    (owner,) = {former._opened()[0].id}
    with engine.begin() as connection:
        values = {"owner": owner, "claim": "former.1", "key": REQUEST.key}
        connection.execute(text(_FORMER[0]), values)
    assert await _waits_for(journal) is None
    with engine.begin() as connection:
        connection.execute(text(_FORMER[1]), {"key": REQUEST.key})
    engine.dispose()
    # Nothing is known of when it goes on.
    assert await _waits_for(journal) == Wait(WaitReason.WORKER, 6.0)
    await former.close()


async def test_a_journal_of_the_revision_before_is_migrated_while_its_workers_go_on(
    url: str,
) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0007")
        connection.execute(text(_INSERT_OF_BEFORE), {"key": REQUEST.key})
    found = Journal(url)
    await found.open()
    with engine.begin() as connection:
        connection.execute(text(_INSERT_OF_BEFORE), {"key": "order:p:18"})
    engine.dispose()
    for key in (REQUEST.key, "order:p:18"):
        assert await _waits_for(found, key) == Wait(WaitReason.WORKER, 1.0)
    assert isinstance(await found.begin(REQUEST), Resumed)
    await found.close()


_INSERT_OF_BEFORE = (
    "INSERT INTO requests (key, name, kind, operation, tenant, digest, state, owner, claim,"
    " attempts, deliveries, received_at, updated_at)"
    " VALUES (:key, '17', 'order', 'o', 'p', 'digest', 'running', NULL, 'c', 0, 1, 1, 1)"
)


def test_a_wait_is_read_as_it_was_kept_and_one_of_a_later_version_is_not() -> None:
    for wait in (RETRY, VOLUME):
        assert Wait.restored(wait.stored() | {"new": 1}) == wait
    assert Wait.restored(RETRY.stored() | {"reason": "weather"}) is None


# Who is next.


def _another(number: int) -> NewRequest:
    return replace(REQUEST, key=f"order:p:{number}", name=str(number))


async def _lined_up(journal: Journal, number: int, *servers: str) -> tuple[Begun, Ahead | None]:
    outcome = await journal.begin(_another(number), servers)
    assert isinstance(outcome, Begun)
    return outcome, outcome.ahead


async def test_requests_for_a_server_line_up_in_the_order_in_which_they_come(
    journal: Journal, url: str
) -> None:
    other = Journal(url)
    await other.open()
    first, ahead = await _lined_up(journal, 1, "a")
    assert ahead is None
    second, ahead = await _lined_up(other, 2, "a")
    assert ahead == Ahead(first.claim, HolderState.ELSEWHERE)
    third, ahead = await _lined_up(journal, 3, "a", "b")
    assert ahead == Ahead(second.claim, HolderState.ELSEWHERE)
    await journal.finish(first.claim, {}, [])
    assert await other.acquire_locks(second.claim) is None
    await other.release(second.claim, keeps_locks=False)
    assert await journal.acquire_locks(third.claim) is None
    await other.close()


async def test_what_nobody_is_at_can_be_taken_out_of_the_line(journal: Journal) -> None:
    first, _ = await _lined_up(journal, 1, "a")
    second, ahead = await _lined_up(journal, 2, "a")
    assert ahead == Ahead(first.claim, HolderState.OURS)
    await journal.release(first.claim)
    ahead = await journal.acquire_locks(second.claim)
    assert ahead is not None
    assert (ahead.claim, ahead.holder, ahead.attempts) == (first.claim, HolderState.GONE, 0)
    assert ahead.rescheduled_at == pytest.approx(time.time(), abs=5)
    resumed = await journal.begin(_another(1))
    assert isinstance(resumed, Resumed)
    await journal.expire_lock(first.claim)
    assert await journal.acquire_locks(second.claim) == Ahead(resumed.claim, HolderState.OURS), (
        "taken up meanwhile: it stays"
    )
    await journal.expire_lock(resumed.claim)
    assert await journal.acquire_locks(second.claim) is None


async def test_whoever_goes_on_keeps_the_place(journal: Journal) -> None:
    first, _ = await _lined_up(journal, 1, "a", "b")
    _, ahead = await _lined_up(journal, 2, "b", "a")
    assert ahead is not None
    await journal.release(first.claim)
    resumed = await journal.begin(_another(1))
    assert isinstance(resumed, Resumed)
    assert await journal.acquire_locks(resumed.claim, ("a", "b")) is None


async def test_a_request_of_another_worker_keeps_its_locks(journal: Journal) -> None:
    first, _ = await _lined_up(journal, 1, "a")
    second, _ = await _lined_up(journal, 2, "a")
    await journal.release(first.claim)
    taken = await journal.begin(_another(1))
    assert isinstance(taken, Resumed)
    with pytest.raises(ClaimLost):
        await journal.finish(first.claim, {}, [])
    await journal.release(first.claim, keeps_locks=False)
    assert await journal.acquire_locks(second.claim) == Ahead(taken.claim, HolderState.OURS)


async def test_a_result_releases_the_locks(journal: Journal, url: str) -> None:
    first, _ = await _lined_up(journal, 1, "a", "b")
    await journal.finish(first.claim, {}, [])
    assert _places(url) == 0


async def test_places_that_a_crash_left_are_swept(journal: Journal, url: str) -> None:
    await _lined_up(journal, 1, "a")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE requests SET state = 'done'"))
    engine.dispose()
    await journal.prune(-10.0)
    assert _places(url) == 0


def _places(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        found: int = connection.execute(text("SELECT count(*) FROM turns")).scalar_one()
    engine.dispose()
    return found


async def test_of_two_workers_that_begin_at_once_one_has_the_lock(url: str) -> None:
    first, second = Journal(url), Journal(url)
    await first.open()
    await second.open()
    try:
        for number in range(100):
            outcomes = await asyncio.gather(
                *(
                    one.begin(
                        replace(REQUEST, key=f"order:p:{number}{who}", name=f"{number}{who}"),
                        (f"server-{number}",),
                    )
                    for who, one in (("a", first), ("b", second))
                )
            )
            assert all(isinstance(one, Begun) for one in outcomes)
            free = [one for one in outcomes if isinstance(one, Begun) and one.ahead is None]
            assert len(free) == 1, "one of the two has the lock, and the other waits for it"
    finally:
        await first.close()
        await second.close()


async def test_workers_that_died_with_a_request_are_counted_and_those_that_ended_are_not(
    url: str,
) -> None:
    lost = []
    for number, dies in enumerate((True, False, True, False)):
        worker = Journal(url)
        await worker.open()
        outcome = await worker.begin(REQUEST)
        assert isinstance(outcome, Resumed if number else Begun)
        if isinstance(outcome, Resumed):
            lost.append((outcome.lost_workers, outcome.was_lost))
        if dies:  # its lock goes with the process, and nothing is written any more
            owner, _ = worker._opened()
            owner.close()
            worker._has_begun = False
        await worker.close()
    assert lost == [(1, True), (1, False), (2, True)]
