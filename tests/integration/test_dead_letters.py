"""`ecs-worker dead`, the real command on a real broker: list, dry run, replay, discard."""

import contextlib
import json
import os
import pty
import pwd
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from amqp import Message

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id, new_token
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Heard, Requester, Source
from tests.support.dead_letters import dead, expire_unread, ids, spawn, start_of_nothing
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

PARAMETER, FAILED, UNKNOWN = "101.001002", "101.001040", "101.001033"
FIELDS = {"id", "key", "operation", "tenant", "code", "error", "origin", "attempts", "failed_at"}
FIELDS |= {"reason", "group", "failed_replays"}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, workshop: Workshop) -> Workshop:
    """A workshop with either journal; no worker yet."""
    if request.param == "postgresql":
        server: PrivatePostgres = request.getfixturevalue("postgres")
        workshop.settings["ECS_JOURNAL_URL"] = server.add_database(f"dead-{uuid.uuid4().hex[:12]}")
    return workshop


@pytest.fixture
def requester(workshop: Workshop) -> Iterator[Requester]:
    with Requester(workshop.broker_url) as found:
        yield found


def results(requester: Requester, message_id: str) -> list[Heard]:
    return [
        one
        for one in requester.heard
        if one.source is Source.REPLY and one.correlation_id == message_id
    ]


def deliveries(workshop: Workshop, message_id: str) -> int:
    rows = json.loads(workshop.command("journal", "show", message_id, "-o", "json").stdout or "[]")
    return rows[0]["deliveries"] if rows else 0


# Listing.


def test_dead_letters_are_listed_grouped_filtered_and_shown(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    wrong = requester.publish("ecs.commands", "server.action", b'{"operation": "server.action"}')
    order_id = new_order_id()
    order = {
        "orderStatus": "paySuccess",
        "orderType": "renew",
        "orderId": order_id,
        "tenant_id": "tenant-a",
    }
    bad_order = requester.order(json.dumps(order), "order.renew")
    requester.publish("ecs.commands", "volume.create", {"operation": "volume.create\x1b[2J"})
    broken = requester.order("{broken")
    eventually(lambda: requester.depth("ecs.dead") == 4)
    rows = dead(workshop, "list")
    assert all(set(row) == FIELDS for row in rows)
    assert [row["failed_at"] for row in rows] == sorted(row["failed_at"] for row in rows)
    found, oldest = {row["id"]: row for row in rows}, rows[0]["id"]
    assert found[wrong] | {"failed_at": 0} == {
        "id": wrong,
        "key": wrong,
        "operation": "server.action",
        "tenant": None,
        "code": PARAMETER,
        "error": found[wrong]["error"],
        "origin": "ecs.servers",
        "attempts": 0,
        "failed_at": 0,
        "reason": None,
        "group": found[wrong]["group"],
        "failed_replays": 0,
    }
    assert (found[bad_order]["key"], found[bad_order]["tenant"]) == (order_id, "tenant-a")
    assert found[broken]["operation"] == "order.unknown"
    for words, expected in (
        (["--id", wrong, "--id", order_id], {wrong, bad_order}),
        (["--code", PARAMETER, "--limit", "1"], {oldest}),
        (["--origin", "ecs.orders"], {bad_order, broken}),
        (["--operation", "order.unknown"], {broken}),
        (["--since", "1h"], ids(rows)),
        (["--before", "1h"], set()),
        (["--code", FAILED], set()),
    ):
        assert ids(dead(workshop, "list", *words)) == expected, words
    groups = dead(workshop, "list", "--summary")
    assert sum(group["count"] for group in groups) == 4
    table = workshop.command("dead", "list").stdout
    assert "4 dead letters" in table
    assert order_id in table
    assert "\x1b" not in table
    shown = workshop.command("dead", "show", order_id)
    assert shown.returncode == 0
    assert "the journal does not know its key" in shown.stdout
    assert "\x1b" not in shown.stdout
    (whole,) = dead(workshop, "show", "--id", wrong)
    assert whole["body"] == {"operation": "server.action"}
    assert whole["properties"]["message_id"] == wrong
    assert whole["headers"]["x-ecs-routing-key"] == "ecs.commands server.action"
    assert workshop.command("dead", "show", "no-such").returncode == 5
    assert requester.depth("ecs.dead") == 4


def test_listing_loses_nothing_under_a_delivery_limit(
    workshop: Workshop, requester: Requester, broker: PrivateBroker
) -> None:
    """A delivery limit, which RabbitMQ 4 has by default, drops what was returned too often."""
    workshop.worker()
    for number in range(20):
        requester.publish(
            "ecs.commands", "server.action", {"operation": "server.action", "number": number}
        )
    eventually(lambda: requester.depth("ecs.dead") == 20)
    vhost = workshop.broker_url.rpartition("/")[2]
    broker.rabbitmqctl(
        "set_policy", "--vhost", vhost, "limit", "^ecs.dead$", '{"delivery-limit": 3}'
    )
    first = dead(workshop, "list")
    assert len(first) == 20
    for _ in range(7):
        assert dead(workshop, "list") == first
    assert requester.depth("ecs.dead") == 20


def test_another_reader_is_reported(workshop: Workshop, requester: Requester) -> None:
    workshop.worker()
    requester.publish("ecs.commands", "server.action", b"{")
    eventually(lambda: requester.depth("ecs.dead") == 1)
    with contextlib.closing(requester._connection.channel()) as channel:
        channel.basic_consume("ecs.dead", callback=lambda _: None)
        done = workshop.command("dead", "list")
        assert done.returncode == 0
        assert "another reader is reading" in done.stderr
    assert len(dead(workshop, "list")) == 1


def test_an_empty_queue_and_a_broker_that_is_down_are_reported(workshop: Workshop) -> None:
    assert dead(workshop, "list") == []
    assert "no dead letters" in workshop.command("dead", "list").stdout
    down = workshop.command("dead", "list", ECS_BROKER_URL="amqp://guest:secret-word@127.0.0.1:1//")
    assert (down.returncode, len(down.stderr.splitlines())) == (4, 1)
    assert "secret-word" not in down.stderr
    assert workshop.command("dead", "list", ECS_BROKER_URL="http://x").returncode == 3
    assert workshop.command("dead", "list", "--since", "yesterday").returncode == 2


# Dry run.


def test_a_dry_run_predicts_each_replay_and_changes_nothing(
    workshop: Workshop, requester: Requester, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    active, order_id = tenant.make_server(disk=10), new_order_id()
    order = json.dumps(
        json.loads(change_configure(active, tenant.image)) | {"tenant_id": "tenant-a"}
    )
    # Nobody has read these: they ran out in the queue.
    runs = requester.command(
        "server.action", server_id=active, body={"reboot": {"type": "HARD"}}, expiration=0.001
    )
    alike = requester.command(
        "server.action",
        server_id=active,
        body={"reboot": {"type": "HARD"}},
        message_id=runs,
        expiration=0.001,
    )
    state = requester.command(
        "server.action", server_id=active, body={"os-start": None}, expiration=0.001
    )
    gone = start_of_nothing(requester, expiration=0.001)
    late = start_of_nothing(
        requester, expiration=0.001, headers={"x-ecs-deadline": str(int(time.time()) - 5)}
    )
    listing = requester.command("server.list", expiration=0.001)
    ordered = requester.order(order, expiration=0.001)
    worker = workshop.worker()
    eventually(lambda: requester.depth("ecs.dead") == 7)
    # An error that nobody foresaw is answered, and parked.
    simulated.fault("api.nova", match=f"^GET .*/servers/{active}", error="odd", status=200, times=1)
    internal = requester.command(
        "server.action", server_id=active, body={"reboot": {"type": "HARD"}}
    )
    assert requester.result_of(internal).body["data"] == {"reason": "internal"}
    first = json.loads(order) | {"orderId": order_id, "productList": []}
    requester.order(json.dumps(first))
    requester.publish("ecs.orders", "order.new", b'{"token": "eyJhbGciOiJub25lIn0.e30.')
    eventually(lambda: requester.depth("ecs.dead") == 10)
    worker.terminate()
    # A listing sets the journal's counts by cause right.
    before = (ids(dead(workshop, "list")), tenant.actions(active), workshop.journal_dump())
    told = dead(workshop, "replay", "--all", "--dry-run")
    assert len(told) == 10
    would = {row["id"]: (row["would"], row["detail"]) for row in told}
    assert alike == runs
    assert sorted(row["would"] for row in told if row["id"] == runs) == ["known", "run"]
    assert any(row["detail"] == f"first step: reboot:{active}" for row in told)
    assert would[state] == ("refused", "101.001012 存在未知状态的云服务器，请重新选择云服务器")
    assert would[gone][0] == "refused"
    assert UNKNOWN in would[gone][1]
    assert would[late] == ("refused", f"{FAILED} 操作失败 (deadline)")
    assert would[listing][0] == "answered"
    assert would[internal] == ("known", f"{FAILED} 操作失败 (internal)")
    (of_order,) = [row for row in told if row["id"] == ordered]
    assert (of_order["would"], of_order["detail"]) == ("run", f"first step: resize:{active}")
    assert of_order["plan"]["plan"][0]["server_id"] == active
    steps = [step["name"] for step in of_order["steps"]]
    assert steps == ["resize", "extend", "confirm", "feeData"]
    assert sorted(row["would"] for row in told if row["operation"].startswith("order.")) == [
        "impossible",
        "parked",
        "run",
    ]
    assert (ids(dead(workshop, "list")), tenant.actions(active), workshop.journal_dump()) == before
    words = workshop.command("dead", "replay", "--all", "--dry-run").stdout
    assert "would return the known result" in words
    simulated.fault("api.nova", match="", error="down", status=503)
    (unsure,) = dead(workshop, "replay", "--dry-run", "--id", state)
    assert unsure["would"] == "unsure"


# Replaying.


def test_a_replay_runs_what_never_ran_and_answers_what_is_known(
    place: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = place.tenant()
    server_id = tenant.make_server(disk=None)
    reboot = {"reboot": {"type": "HARD"}}
    with Requester(place.broker_url) as requester:
        unread = requester.command(
            "server.action", server_id=server_id, body=reboot, expiration=0.001
        )
        place.worker()
        assert requester.result_of(unread).body["data"] == {"reason": "deadline"}
        simulated.fault(
            "api.nova", match=f"^GET .*/servers/{server_id}", error="odd", status=200, times=1
        )
        internal = requester.command("server.action", server_id=server_id, body=reboot)
        first = requester.result_of(internal)
        eventually(lambda: requester.depth("ecs.dead") == 2)
        requester.heard.clear()
        (row,) = dead(place, "replay", "--all", "--yes", "--operator", "night@shift")
        assert (row["done"], row["left"], row["operator"]) == (2, 0, "night@shift")
        assert requester.result_of(unread).body == {"code": 200, "message": "OK", "data": None}
        requester.last_update_of("server", unread)
        again = requester.result_of(internal)
        assert (again.raw, again.properties["message_id"]) == (
            first.raw,
            first.properties["message_id"],
        )
        eventually(lambda: requester.depth("ecs.servers") == 0)
    assert tenant.actions(server_id) == ["create", "reboot"]
    assert dead(place, "list") == []
    # What was put in again, by whom and when, and what became of it, stays readable.
    (batch,) = dead(place, "replays")
    assert (batch["batch"], batch["operator"], batch["messages"], batch["done"]) == (
        row["batch"],
        "night@shift",
        2,
        2,
    )
    members = {one["id"]: one for one in dead(place, "replays", row["batch"])}
    assert members[unread]["result"] == "200 OK"
    assert members[internal]["reason"] == "internal"
    assert all(one["state"] == "sent" and one["arrived_at"] for one in members.values())
    history = json.loads(place.command("journal", "show", unread, "-o", "json").stdout)
    assert history[0]["replays"][0]["operator"] == "night@shift"


def test_dead_letters_that_are_left_are_given_back_only_once(place: Workshop) -> None:
    with Requester(place.broker_url) as requester:
        worker = place.worker()
        for _ in range(2):
            start_of_nothing(requester, reply_to="ecs.orders")
        eventually(lambda: requester.depth("ecs.dead") == 2)
        worker.terminate()
    assert dead(place, "discard", "--all", "--limit", "1", "--yes")[0]["done"] == 1
    (left,) = dead(place, "show", "--all")
    # Each time counts towards a delivery limit that the broker may have.
    assert left["headers"]["x-delivery-count"] == 1


def test_the_record_has_the_real_user_whatever_the_operator_is_called(
    place: Workshop,
) -> None:
    user, host = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname()
    with Requester(place.broker_url) as requester:
        place.worker()
        for _ in range(2):
            start_of_nothing(requester, reply_to="ecs.orders")
        eventually(lambda: requester.depth("ecs.dead") == 2)
    claims = {
        "USER": "claimed",
        "LOGNAME": "claimed",
        "USERNAME": "claimed",
        "SUDO_USER": "claimed",
    }
    named = place.command(
        "dead", "discard", "--all", "--limit", "1", "--yes", "--operator", "boss@office", **claims
    )
    unnamed = place.command("dead", "discard", "--all", "--limit", "1", "--yes", **claims)
    assert (named.returncode, unnamed.returncode) == (0, 0), named.stderr + unnamed.stderr
    sets = dead(place, "replays")
    assert {one["operator"] for one in sets} == {"boss@office", f"claimed (as {user})@{host}"}
    for one in (*sets, *dead(place, "replays", sets[0]["batch"])):
        assert one["real_user"].startswith(user)  # and who logged in, where that was somebody else
        assert one["real_user"].endswith(f"@{host}")
        assert "claimed" not in one["real_user"]


def test_a_replay_that_is_published_twice_has_no_second_effect(
    workshop: Workshop, requester: Requester
) -> None:
    """Fault 58: the command was killed between the publishing and the ack, and is run again."""
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    message_id = requester.command(
        "server.action", server_id=server_id, body={"reboot": {"type": "HARD"}}, expiration=0.001
    )
    workshop.worker()
    eventually(lambda: requester.depth("ecs.dead") == 1)
    requester.heard.clear()
    # What lies there lies there twice, as after such a death.
    channel = requester._connection.channel()
    copy = channel.basic_get("ecs.dead")
    channel.basic_publish(copy, "ecs.dead", "ecs.servers")
    channel.close()
    eventually(lambda: requester.depth("ecs.dead") == 2)
    assert dead(workshop, "replay", "--all", "--yes")[0]["done"] == 2
    requester.wait(lambda _: len(results(requester, message_id)) == 2)
    requester.last_update_of("server", message_id)
    assert (
        len({(one.raw, one.properties["message_id"]) for one in results(requester, message_id)})
        == 1
    )
    assert tenant.actions(server_id) == ["create", "reboot"]


def test_reads_are_replayed_also_those_that_the_version_before_dead_lettered(
    workshop: Workshop, requester: Requester
) -> None:
    order = json.loads(change_configure(str(uuid.uuid4()), str(uuid.uuid4())))
    asked = {
        "ecs.servers": ("server.list", {}),
        "ecs.images": ("image.list", {}),
        "ecs.orders": ("order.plan", {"order": order}),
    }
    sent = {
        origin: requester.command(operation, expiration=0.001, **fields)
        for origin, (operation, fields) in asked.items()
    }
    now = requester.command("server.list", expiration=0.001)
    workshop.worker()
    eventually(lambda: requester.depth("ecs.dead") == 4)
    # The version before took all commands of servers from one queue, reads among them.
    channel = requester._connection.channel()
    came_from = {message_id: origin for origin, message_id in sent.items()}
    for _ in range(4):
        letter = channel.basic_get("ecs.dead", no_ack=True)
        assert letter.headers["x-ecs-origin-queue"] == "ecs.reads"
        origin = came_from.get(letter.properties["message_id"], "ecs.reads")
        letter.headers["x-ecs-origin-queue"] = origin
        copy = Message(letter.body, **{**letter.properties, "application_headers": letter.headers})
        channel.basic_publish(copy, "ecs.dead", origin)
    channel.close()
    eventually(lambda: requester.depth("ecs.dead") == 4)
    rows = dead(workshop, "list")
    assert {row["id"]: row["origin"] for row in rows} == came_from | {now: "ecs.reads"}
    requester.heard.clear()
    assert dead(workshop, "replay", "--all", "--yes")[0]["done"] == 4
    assert [requester.result_of(one).body["code"] for one in (*came_from, now)] == [200] * 4
    assert dead(workshop, "list") == []


def test_an_old_message_is_not_refused_as_too_old_when_it_is_replayed(
    workshop: Workshop, requester: Requester
) -> None:
    message_id = expire_unread(workshop, requester, 1)[0]
    start = {
        "operation": "server.action",
        "tenant_id": "tenant-a",
        "server_id": str(uuid.uuid4()),
        "body": {"os-start": None},
    }
    unanswered_for = requester.publish(
        "ecs.commands", "server.action", start, reply_to=requester.reply_to
    )
    time.sleep(2.5)
    workshop.worker(ECS_MAX_AGE="1")
    # As old, and nobody's word for it.
    assert requester.result_of(unanswered_for).body["data"] == {"reason": "too_old"}
    assert dead(workshop, "replay", "--yes", "--id", message_id)[0]["done"] == 1
    assert requester.result_of(message_id).body["code"] == UNKNOWN


def test_a_stored_list_leaves_newer_dead_letters_alone(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    listed = [requester.publish("ecs.commands", "server.action", b"{") for _ in range(3)]
    eventually(lambda: requester.depth("ecs.dead") == 3)
    kept = workshop.folder / "set.json"
    kept.write_text(workshop.command("dead", "list", "-o", "json").stdout)
    later = [requester.publish("ecs.commands", "server.action", b"{") for _ in range(2)]
    eventually(lambda: requester.depth("ecs.dead") == 5)
    assert dead(workshop, "discard", "--set", str(kept), "--yes")[0]["done"] == 3
    assert ids(dead(workshop, "list")) == set(later)
    assert not ids(dead(workshop, "list")) & set(listed)
    assert dead(workshop, "discard", "--set", str(kept), "--yes") == []
    kept.write_text('{"a": 1}')
    assert workshop.command("dead", "replay", "--set", str(kept), "--yes").returncode == 2
    assert (
        workshop.command("dead", "replay", "--set", str(kept), "--batch", "x", "--yes").returncode
        == 2
    )
    assert workshop.command("dead", "replay", "--batch", "no-such", "--yes").returncode == 5


def test_a_discarded_message_is_gone_and_on_record(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    first = requester.publish("ecs.commands", "server.action", b"{")
    other = requester.publish("ecs.commands", "image.show", b"{")
    eventually(lambda: requester.depth("ecs.dead") == 2)
    assert [row["would"] for row in dead(workshop, "discard", first, "--dry-run")] == ["discarded"]
    assert dead(workshop, "discard", first, "--yes")[0]["done"] == 1
    assert ids(dead(workshop, "list")) == {other}
    (batch,) = dead(workshop, "replays")
    assert (batch["action"], dead(workshop, "replays", batch["batch"])[0]["id"]) == (
        "discard",
        first,
    )


def test_a_message_that_cannot_be_replayed_stays(workshop: Workshop, requester: Requester) -> None:
    workshop.worker()
    requester.publish("ecs.commands", "server.action", b'{"token": "eyJhbGciOiJub25lIn0.e30.')
    eventually(lambda: requester.depth("ecs.dead") == 1)
    alone = workshop.command("dead", "replay", "--all", "--yes")
    assert alone.returncode == 7
    assert "its body was not kept" in alone.stderr
    good = requester.publish("ecs.commands", "server.action", b"{")
    eventually(lambda: requester.depth("ecs.dead") == 2)
    (row,) = dead(workshop, "replay", "--all", "--yes", code=6)
    assert (row["done"], row["impossible"]) == (1, 1)
    eventually(lambda: requester.depth("ecs.dead") == 2)  # it was refused, and parked again
    (again,) = dead(workshop, "show", good)
    assert again["headers"]["x-ecs-replay"] == row["batch"]


# Asking the operator.


def test_without_yes_and_a_terminal_nothing_is_done(
    workshop: Workshop, requester: Requester
) -> None:
    workshop.worker()
    requester.publish("ecs.commands", "server.action", b"{")
    eventually(lambda: requester.depth("ecs.dead") == 1)
    for words in (["replay", "--all"], ["discard", "--all"], ["discard", "--code", PARAMETER]):
        done = workshop.command("dead", *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (7, "", 1)
    assert requester.depth("ecs.dead") == 1
    assert dead(workshop, "replay", "--yes", "--code", "none") == []


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 7, 1), ("y", 0, 0)])
def test_at_a_terminal_it_shows_a_preview_and_asks(
    workshop: Workshop, requester: Requester, answer: str, code: int, left: int
) -> None:
    expire_unread(workshop, requester, 1)
    seen, returned = at_terminal(workshop, answer, "dead", "replay", "--all")
    assert "would be refused" in seen
    assert "Continue? [y/N]" in seen
    assert returned == code
    assert requester.depth("ecs.dead") == left


def at_terminal(workshop: Workshop, answer: str, *words: str) -> tuple[str, int]:
    """Answer the question at a terminal; return what was printed, and the exit code."""
    ours, theirs = pty.openpty()
    process = spawn(workshop, *words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        answered = False
        with contextlib.suppress(OSError):  # its end is an error to a terminal
            while chunk := os.read(ours, 4096):
                seen.extend(chunk)
                if b"[y/N]" in seen and not answered:
                    answered = True
                    os.write(ours, f"{answer}\n".encode())

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(180)
    reader.join(10)
    os.close(ours)
    return seen.decode(), code


# Interrupted.


def replaying(
    workshop: Workshop, requester: Requester, total: int, *words: str
) -> "subprocess.Popen[bytes]":
    """Start a replay, and return while it is under way."""
    out = (workshop.folder / "replay.out").open("wb")
    process = spawn(
        workshop, "dead", "replay", "--all", "--yes", *words, stdout=out, stderr=subprocess.STDOUT
    )
    eventually(lambda: 0 < heard_of(requester) < total or process.poll() is not None, 60)
    assert process.poll() is None, (workshop.folder / "replay.out").read_text()
    return process


def heard_of(requester: Requester) -> int:
    requester.listen(0.01)
    return len({one.correlation_id for one in requester.heard if one.source is Source.REPLY})


def test_a_replay_is_stopped_half_way_and_resumed(place: Workshop) -> None:
    with Requester(place.broker_url) as requester:
        sent = expire_unread(place, requester, 60)
        place.worker()
        process = replaying(place, requester, 60, "--rate", "20")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 6
        said = (place.folder / "replay.out").read_text()
        assert "resume with: ecs-worker dead replay --batch" in said
        (batch,) = dead(place, "replays")
        assert f"--batch {batch['batch']} --rate 20" in said, "a batch does not remember its rate"
        assert 0 < batch["done"] < 60
        assert f"{batch['done']} of 60 are replayed" in said
        newcomer = requester.publish("ecs.commands", "server.action", b"{")
        eventually(lambda: requester.depth("ecs.dead") == 61 - batch["done"])
        # The same command goes on with what it left, and with nothing else.
        again = place.command("dead", "replay", "--all", "--yes")
        assert again.returncode == 0
        assert batch["batch"] in again.stderr
        assert ids(dead(place, "list")) == {newcomer}
        eventually(lambda: heard_of(requester) == 60, 60)
        requester.listen(0.3)
        assert all(len(results(requester, one)) == 1 for one in sent)
        assert [one["done"] for one in dead(place, "replays")] == [60]
        done = place.command("dead", "replay", "--yes", "--batch", batch["batch"])
        assert (done.returncode, "60 of 60 are done" in done.stderr) == (0, True)


def test_a_replay_that_is_killed_three_times_loses_and_repeats_nothing(place: Workshop) -> None:
    with Requester(place.broker_url) as requester:
        sent = expire_unread(place, requester, 80)
        place.worker()
        for _ in range(3):
            had = heard_of(requester)
            process = spawn(
                place, "dead", "replay", "--all", "--yes", "--rate", "40", stderr=subprocess.DEVNULL
            )
            eventually(lambda: heard_of(requester) > had + 5 or process.poll() is not None, 60)  # noqa: B023
            process.kill()
            process.wait(10)
        assert place.command("dead", "replay", "--all", "--yes").returncode == 0
        eventually(lambda: heard_of(requester) == 80, 60)
        eventually(lambda: requester.depth("ecs.servers") == 0)
        requester.listen(0.5)
        for one in sent:
            copies = results(requester, one)
            assert len({(copy.raw, copy.properties["message_id"]) for copy in copies}) == 1
        assert dead(place, "list") == []
        rows = [
            row
            for batch in dead(place, "replays")
            for row in dead(place, "replays", batch["batch"])
        ]
        assert ids(rows) == set(sent)


# Secrets.


def test_no_secret_is_shown_anywhere(
    workshop: Workshop, requester: Requester, tmp_path: Path
) -> None:
    token, password = new_token(), f"canary-{uuid.uuid4().hex}"
    order = {
        "orderStatus": "paySuccess",
        "orderType": "new",
        "orderId": new_order_id(),
        "token": token,
        "orderRoute": "x",
        "consoleCustomization": {"adminPass": password, "userData": password},
    }
    workshop.worker()
    requester.order(json.dumps(order), "order.new", headers={"authorization": f"Bearer {token}"})
    requester.publish(
        "ecs.commands", "server.action", f'{{"token": "{token}", "password": "{password}"'
    )
    eventually(lambda: requester.depth("ecs.dead") == 2)
    said = ""
    for words in (
        ["list"],
        ["list", "-o", "json"],
        ["show", "--all"],
        ["show", "--all", "-o", "json"],
        ["replay", "--all", "--dry-run"],
        ["replay", "--all", "--dry-run", "-o", "json"],
        ["replay", "--all", "--yes"],
        ["discard", "--all", "--yes"],
        ["replays", "-o", "json"],
    ):
        done = workshop.command("dead", *words)
        said += done.stdout + done.stderr
    assert "***" in said
    for secret in (token, token.split(".")[2], password):
        assert secret not in said
        assert secret not in workshop.journal_dump()
        assert secret not in workshop.logs()
