"""Authentication on a real broker: tokens of a test issuer, its key set over HTTP and as a file,
resume tokens, attacks.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from amqp import Message
from kombu import Connection, Queue

from ecs_client import EcsClient, IdentityNotProven
from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.issuer import USER, Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.headers import RESUME_TOKEN_HEADER
from workers.amqp.topology import declare, topology
from workers.identity import hash_of, new_resume_token

pytestmark = pytest.mark.slow

IDENTITY, PARAMETER, FAILED, UNKNOWN = "101.001401", "101.001002", "101.001040", "101.001033"
REFUSED = {"code": IDENTITY, "message": "身份校验失败", "data": None}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A worker that asks for tokens, and who issues them."""

    workshop: Workshop
    issuer: Issuer
    server: KeySetServer

    def token(self, **claims: Any) -> str:
        """The user's token for tenant-a."""
        return self.issuer.token(**{"project": "tenant-a"} | claims)

    def order(self, server_id: str, **fields: Any) -> dict[str, Any]:
        """The user's order for another flavor alone."""
        image = self.workshop.tenant().image
        order: dict[str, Any] = json.loads(change_configure(server_id, image, token=self.token()))
        order["productList"][0]["itemList"] = order["productList"][0]["itemList"][:3]
        return order | fields


def guards(workshop: Workshop, key_set: str, **settings: str) -> None:
    """Have the workers of a workshop ask for tokens."""
    workshop.settings |= {"ECS_TRUST_PUBLISHERS": "false", "ECS_JWT_JWKS": key_set, **settings}


@pytest.fixture(scope="module")
def guarded(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """One worker for all tests that leave it well."""
    folder, issuer = tmp_path_factory.mktemp("guarded"), Issuer()
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with KeySetServer(issuer) as server, Workshop(url, simulated, folder) as workshop:
        guards(workshop, server.url, ECS_JWT_ISSUER=issuer.name, ECS_JWT_AUDIENCE="client-gaoss")
        workshop.worker()
        yield Guarded(workshop, issuer, server)


@pytest.fixture
def own(workshop: Workshop) -> Iterator[Guarded]:
    """No worker yet, a key set of its own."""
    issuer = Issuer()
    with KeySetServer(issuer) as server:
        guards(workshop, server.url)
        yield Guarded(workshop, issuer, server)


def start(
    requester: Requester, token: str | None, server_id: str | None = None, **fields: Any
) -> str:
    """Publish a command that would start a server."""
    body = {
        "server_id": server_id or str(uuid.uuid4()),
        "body": {"os-start": None},
        "user_id": USER,
        "token": token,
    }
    body = {name: value for name, value in (body | fields).items() if value is not None}
    return requester.command("server.action", **{"tenant": None} | body)


def publish_bare(url: str, exchange: str, routing_key: str, body: Any, **properties: Any) -> None:
    """Publish with these properties and no others: without a timestamp, or as what kombu would not
    write.
    """
    with Connection(url) as connection:
        connection.channel().basic_publish(
            Message(json.dumps(body), content_type="application/json", **properties),
            exchange,
            routing_key,
        )


def in_queue(url: str, name: str) -> list[Any]:
    """Everything in a queue, taken out."""
    with Connection(url) as connection:
        queue, found = Queue(name, no_declare=True)(connection.channel()), []
        while (message := queue.get(no_ack=True)) is not None:
            found.append(message)
        return found


def refused(heard: Heard) -> None:
    assert heard.body == REFUSED
    assert heard.headers["x-ecs-http-status"] == 401


def order_refused(heard: Heard) -> None:
    assert (heard.body["code"], heard.body["message"]) == (IDENTITY, "身份校验失败")
    assert heard.body["data"]["productSetList"][0]["resourceChanged"] is False
    assert heard.headers["x-ecs-http-status"] == 401


# What is right.


def test_a_token_says_who_asks_and_for_which_tenant(guarded: Guarded) -> None:
    """The code says that the server does not exist: so it was asked for, in a project."""
    project_id = guarded.workshop.tenant().project_id
    with Requester(guarded.workshop.broker_url) as requester:
        for claim in ("tenant-a", project_id):
            for said in (None, "tenant-a", project_id):
                message_id = start(requester, f"Bearer {guarded.token(project=claim)}", tenant=said)
                assert requester.result_of(message_id).body["code"] == UNKNOWN, (claim, said)


def test_an_order_acts_in_its_tokens_tenant(guarded: Guarded) -> None:
    tenant = guarded.workshop.tenant()
    server_id = tenant.make_server(disk=None)
    with Requester(guarded.workshop.broker_url) as requester:
        message_id = requester.order(json.dumps(guarded.order(server_id)))
        result = requester.order_result_of(message_id).body
        assert result["code"] == 200
        assert "eyJ" not in json.dumps(result)
    assert tenant.server(server_id)["flavor"]["original_name"] == "S1.medium.2"


def test_the_key_set_may_be_a_file(own: Guarded, tmp_path: Path) -> None:
    own.workshop.worker(ECS_JWT_JWKS=str(own.issuer.write(tmp_path / "keys.json")))
    with Requester(own.workshop.broker_url) as requester:
        assert requester.result_of(start(requester, own.token())).body["code"] == UNKNOWN
        refused(requester.result_of(start(requester, Issuer().token(project="tenant-a"))))
    assert own.server.asked == []


# Attacks. Each is refused, nothing is called, and the next good message is handled as ever.


def unsigned(issuer: Issuer) -> str:
    import base64  # noqa: PLC0415

    header = base64.urlsafe_b64encode(
        json.dumps({"alg": "none", "typ": "JWT", "kid": issuer.kid}).encode()
    )
    return f"{header.rstrip(b'=').decode()}.{issuer.token(project='tenant-a').split('.')[1]}."


def altered(issuer: Issuer) -> str:
    mine, other = (issuer.token(project=name).split(".") for name in ("tenant-a", "tenant-b"))
    return ".".join([mine[0], other[1], mine[2]])


ATTACKS: dict[str, Any] = {
    "no token": lambda _: None,
    "an empty one": lambda _: "",
    "a mask": lambda _: "***",
    "alg none": unsigned,
    "altered payload": altered,
    "unknown kid": lambda _: Issuer().token(project="tenant-a"),
    "another's key of the same kid": lambda one: Issuer(one.name).token(
        project="tenant-a", header={"kid": one.kid}
    ),
    "jku": lambda one: one.token(project="tenant-a", header={"jku": "http://127.0.0.1:1/"}),
    "other issuer": lambda one: one.token(
        project="tenant-a", iss="https://iam.example/auth/realms/other"
    ),
    "other audience": lambda one: one.token(project="tenant-a", aud=["account"]),
    "expired": lambda one: one.token(project="tenant-a", exp=int(time.time()) - 61),
    "nbf in the future": lambda one: one.token(project="tenant-a", nbf=int(time.time()) + 120),
    "refresh token": lambda one: one.token(project="tenant-a", typ="Refresh"),
    "sub is another's": lambda one: one.token(project="tenant-a", sub=str(uuid.uuid4())),
    "no exp": lambda one: one.token(project="tenant-a", exp=None),
    "no tenant": lambda one: one.token(project=None),
    "a tenant that we have no role in": lambda one: one.token(project="gaoss"),
    "60 KB": lambda one: one.token(project="tenant-a", padding="x" * 40_000),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_who_is_not_proven_is_refused(guarded: Guarded, attack: str) -> None:
    workshop, token = guarded.workshop, ATTACKS[attack](guarded.issuer)
    server_id = workshop.tenant().make_server(disk=None)
    workshop.tenant().act(server_id, {"os-stop": None})
    workshop.tenant().wait(server_id, lambda server: bool(server["status"] == "SHUTOFF"))
    order = guarded.order(server_id, token=token)
    with Requester(workshop.broker_url) as requester:
        refused(requester.result_of(start(requester, token, server_id)))
        message_id = requester.order(json.dumps(order))
        order_refused(requester.order_result_of(message_id, 60))
        eventually(lambda: requester.depth("ecs.dead") == 1)
        assert requester.updates_of(message_id) == [], (
            "nobody ends an order who has not proven that it is his"
        )
        (parked,) = in_queue(workshop.broker_url, "ecs.dead")
        assert json.loads(parked.body) == order | {"token": None if token is None else "***"}
        assert parked.headers["x-ecs-error-code"] == IDENTITY
        assert requester.result_of(start(requester, guarded.token(), server_id)).body["code"] == 200
    assert workshop.tenant().actions(server_id) == ["create", "stop", "start"]


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "http://127.0.0.1:1/", "' OR 1=1 --"]
)
def test_a_key_id_is_compared_and_nothing_else(guarded: Guarded, kid: str) -> None:
    with Requester(guarded.workshop.broker_url) as requester:
        refused(requester.result_of(start(requester, guarded.token(header={"kid": kid}))))


def test_a_token_of_300_kilobytes_is_refused(guarded: Guarded) -> None:
    """Which is longer than any text may be."""
    with Requester(guarded.workshop.broker_url) as requester:
        result = requester.result_of(start(requester, guarded.token(padding="x" * 300_000)))
        assert result.body["code"] == PARAMETER


@pytest.mark.parametrize("user", [None, "", "somebody", USER.upper(), 7])
def test_a_message_of_nobody_or_of_another_is_refused(guarded: Guarded, user: Any) -> None:
    with Requester(guarded.workshop.broker_url) as requester:
        result = requester.result_of(start(requester, guarded.token(), user_id=user)).body
        assert result["code"] == (PARAMETER if user == 7 else IDENTITY)


@pytest.mark.parametrize("token", [7, True, ["eyJ"], {"a": "b"}, 1.5])
def test_a_token_that_is_no_text_is_refused(guarded: Guarded, token: Any) -> None:
    with Requester(guarded.workshop.broker_url) as requester:
        refused(requester.result_of(start(requester, token)))


@pytest.mark.parametrize("tenant", ["tenant-b", "no-such-tenant", "admin"])
def test_a_tenant_id_that_says_another_project_is_refused(guarded: Guarded, tenant: str) -> None:
    server_id = guarded.workshop.tenant().make_server(disk=None)
    with Requester(guarded.workshop.broker_url) as requester:
        refused(requester.result_of(start(requester, guarded.token(), tenant=tenant)))
        other = guarded.workshop.tenant("tenant-b").project_id
        refused(requester.result_of(start(requester, guarded.token(), tenant=other)))
        message_id = requester.order(json.dumps(guarded.order(server_id, tenant_id=tenant)))
        order_refused(requester.order_result_of(message_id))
        eventually(lambda: requester.depth("ecs.dead") == 1)
    in_queue(guarded.workshop.broker_url, "ecs.dead")
    assert guarded.workshop.tenant().actions(server_id) == ["create"]


def test_a_refused_command_that_nobody_waits_for_is_parked_masked(guarded: Guarded) -> None:
    token = Issuer().token()
    with Requester(guarded.workshop.broker_url) as requester:
        body = {
            "operation": "server.show",
            "server_id": str(uuid.uuid4()),
            "token": f"Bearer {token}",
            "user_id": USER,
        }
        requester.publish("ecs.commands", "server.show", body)
        eventually(lambda: requester.depth("ecs.dead") == 1)
    (parked,) = in_queue(guarded.workshop.broker_url, "ecs.dead")
    assert json.loads(parked.body)["token"] == "***"
    assert token.split(".")[2] not in repr(parked.headers)


# When it counts.


def test_a_token_counts_when_it_was_valid_at_the_instant_of_publishing(guarded: Guarded) -> None:
    url, now = guarded.workshop.broker_url, int(time.time())
    over = guarded.token(iat=now - 7200, exp=now - 3600)
    with Requester(url) as requester:
        for timestamp, code in (
            (now - 3700, UNKNOWN),
            (now, IDENTITY),
            (None, IDENTITY),
            (now - 8000, IDENTITY),
        ):
            correlation_id = uuid.uuid4().hex
            body = {
                "operation": "server.action",
                "server_id": str(uuid.uuid4()),
                "body": {"os-start": None},
                "user_id": USER,
                "token": over,
            }
            given = {} if timestamp is None else {"timestamp": timestamp}
            publish_bare(
                url,
                "ecs.commands",
                "server.action",
                body,
                message_id=uuid.uuid4().hex,
                correlation_id=correlation_id,
                reply_to=requester.reply_to,
                **given,
            )
            assert requester.result_of(correlation_id).body["code"] == code, timestamp


def test_a_token_counts_for_a_message_that_waited_only_as_long_after_its_exp_as_the_grace_says(
    own: Guarded,
) -> None:
    """Its publisher says when a message was published, truly or not."""
    url, now = own.workshop.broker_url, int(time.time())
    own.workshop.worker(ECS_TOKEN_GRACE="600")
    with Requester(url) as requester:
        for expired_ago, code in ((500, UNKNOWN), (700, IDENTITY)):
            over = own.token(iat=now - 7200, exp=now - expired_ago)
            correlation_id = uuid.uuid4().hex
            body = {
                "operation": "server.action",
                "server_id": str(uuid.uuid4()),
                "body": {"os-start": None},
                "user_id": USER,
                "token": over,
            }
            publish_bare(
                url,
                "ecs.commands",
                "server.action",
                body,
                message_id=uuid.uuid4().hex,
                correlation_id=correlation_id,
                reply_to=requester.reply_to,
                timestamp=now - 3600,
            )
            assert requester.result_of(correlation_id).body["code"] == code, expired_ago
    eventually(lambda: "ECS_TOKEN_GRACE" in own.workshop.logs())


@pytest.mark.parametrize("operation", ["server.action", "server.show"])
def test_a_message_that_is_too_old_when_it_first_comes_is_refused(
    guarded: Guarded, operation: str
) -> None:
    """A read as well: an old token opens nothing for good."""
    url, then = guarded.workshop.broker_url, int(time.time()) - 86400 - 60
    body = {
        "operation": operation,
        "server_id": str(uuid.uuid4()),
        "body": {"os-start": None},
        "user_id": USER,
        "token": guarded.token(iat=then - 10, exp=then + 100),
    }
    with Requester(url) as requester:
        correlation_id = uuid.uuid4().hex
        publish_bare(
            url,
            "ecs.commands",
            operation,
            body,
            message_id=uuid.uuid4().hex,
            correlation_id=correlation_id,
            reply_to=requester.reply_to,
            timestamp=then,
        )
        result = requester.result_of(correlation_id).body
        assert (result["code"], result["data"]) == (PARAMETER, {"reason": "too_old"})


def test_a_redelivery_counts_though_its_token_has_expired_meanwhile(own: Guarded) -> None:
    """It has no timestamp: so it was published when it comes, and the second time that is too late."""
    workshop, url = own.workshop, own.workshop.broker_url
    server_id = workshop.tenant().make_server(disk=10)
    worker = workshop.worker()
    with Requester(url) as requester:
        now = int(time.time())
        # With the leeway it counts for twelve seconds more.
        order = own.order(server_id, token=own.token(iat=now - 600, exp=now - 48))
        publish_bare(
            url, "ecs.orders", "order.changeConfigure", order, message_id="m", delivery_mode=2
        )
        requester.wait(lambda one: one.body.get("status") == "resizing")
        worker.kill()
        time.sleep(max(0.0, now + 13 - time.time()))
        workshop.worker()
        assert requester.order_result_of("m").body["code"] == 200
        # Somebody else's order with that token is refused.
        publish_bare(
            url, "ecs.orders", "order.changeConfigure", order | {"orderId": "1"}, message_id="n"
        )
        order_refused(requester.order_result_of("n"))
    assert workshop.tenant().actions(server_id).count("resize") == 1


# The key set.


def test_a_new_key_counts_as_soon_as_it_is_in_the_set(own: Guarded) -> None:
    own.workshop.worker()
    old = own.token()
    with Requester(own.workshop.broker_url) as requester:
        assert requester.result_of(start(requester, old)).body["code"] == UNKNOWN
        own.issuer.rotate()
        order = own.order(own.workshop.tenant().make_server(disk=None))
        # The set was fetched a moment ago: an order waits until it may be fetched again, and is not
        # refused.
        message_id = requester.order(json.dumps(order))
        assert requester.order_result_of(message_id, 60).body["code"] == 200
        assert requester.result_of(start(requester, old)).body["code"] == UNKNOWN, (
            "the old key is still in the set"
        )
    assert len(own.server.asked) == 2


def test_a_thousand_key_ids_that_are_made_up_fetch_the_set_once_in_thirty_seconds(
    own: Guarded,
) -> None:
    own.workshop.worker()
    began = time.monotonic()
    with Requester(own.workshop.broker_url) as requester:
        assert requester.result_of(start(requester, own.token())).body["code"] == UNKNOWN
        ids = [start(requester, own.token(header={"kid": uuid.uuid4().hex})) for _ in range(1000)]
        for message_id in ids:
            refused(requester.result_of(message_id, 120))
        assert requester.result_of(start(requester, own.token())).body["code"] == UNKNOWN
    assert len(own.server.asked) <= 1 + (time.monotonic() - began) / 30 + 1


def test_old_keys_count_while_the_set_cannot_be_reached(own: Guarded) -> None:
    own.workshop.worker(ECS_COMMAND_TIMEOUT="10")
    with Requester(own.workshop.broker_url) as requester:
        assert requester.result_of(start(requester, own.token())).body["code"] == UNKNOWN
        own.server.stop()
        assert requester.result_of(start(requester, own.token())).body["code"] == UNKNOWN
        assert own.workshop.running.problems() == []
        own.server.start()


def test_while_there_is_no_key_set_orders_wait_and_commands_are_answered_in_time(
    own: Guarded,
) -> None:
    own.server.stop()
    worker = own.workshop.worker(wait=False, ECS_COMMAND_TIMEOUT="3")
    eventually(lambda: any("key set" in one for one in worker.problems()), 60)
    server_id = own.workshop.tenant().make_server(disk=None)
    with Requester(own.workshop.broker_url) as requester:
        waiting = requester.order(json.dumps(own.order(server_id)))
        result = requester.result_of(start(requester, own.token())).body
        assert (result["code"], result["data"]) == (FAILED, {"reason": "keys"})
        # It is in no retry queue: there its token would be lost. A worker that ends leaves it to
        # the next.
        assert [requester.depth(f"ecs.retry.{seconds}") for seconds in (5, 30, 120)] == [0, 0, 0]
        worker.kill()
        eventually(lambda: requester.depth("ecs.orders") == 1)
        own.workshop.worker(wait=False)
        own.server.start()
        assert requester.order_result_of(waiting).body["code"] == 200
        assert requester.depth("ecs.dead") == 0
    assert own.workshop.tenant().actions(server_id).count("resize") == 1


def test_what_waited_for_the_key_set_is_not_too_old(own: Guarded) -> None:
    """It was young enough when it first came."""
    own.server.stop()
    worker = own.workshop.worker(wait=False, ECS_MAX_AGE="5")
    eventually(lambda: any("key set" in one for one in worker.problems()), 60)
    server_id = own.workshop.tenant().make_server(disk=None)
    with Requester(own.workshop.broker_url) as requester:
        message_id = requester.order(json.dumps(own.order(server_id)))
        eventually(lambda: requester.depth("ecs.orders") == 0)
        time.sleep(3)
        worker.kill()
        eventually(lambda: requester.depth("ecs.orders") == 1)
        time.sleep(3)
        own.workshop.worker(wait=False, ECS_MAX_AGE="5")
        own.server.start()
        assert requester.order_result_of(message_id).body["code"] == 200


# Passes.


def put_off(
    own: Guarded, requester: Requester, cloud: SimulatedOpenStack
) -> tuple[dict[str, Any], str]:
    """An order that waits in a retry queue, and its message's id."""
    server_id = own.workshop.tenant().make_server(disk=None)
    cloud.fault("api.nova", match=server_id, error="down", status=503)
    order = own.order(server_id)
    message_id = requester.order(json.dumps(order))
    requester.wait(lambda one: one.body.get("status") == "waiting_retry", 60)
    cloud.clear_faults()
    return order, message_id


def test_what_comes_back_from_a_retry_queue_is_known_by_its_pass(
    own: Guarded, simulated: SimulatedOpenStack
) -> None:
    workshop = own.workshop
    declare(workshop.broker_url, topology((2,)))
    workshop.worker(ECS_RETRY_DELAYS="2")
    with Requester(workshop.broker_url) as requester:
        order, message_id = put_off(own, requester, simulated)
        assert requester.order_result_of(message_id).body["code"] == 200
        assert requester.depth("ecs.dead") == 0
    assert workshop.tenant().actions(order["productList"][0]["instanceId"]).count("resize") == 1


def test_what_a_restored_journal_has_no_pass_of_is_not_proven_until_somebody_vouches(
    own: Guarded, simulated: SimulatedOpenStack
) -> None:
    """The backup is older than the order that waits in a retry queue (docs/operations/backup.md)."""
    workshop = own.workshop
    declare(workshop.broker_url, topology((8,)))
    worker = workshop.worker(ECS_RETRY_DELAYS="8")
    with Requester(workshop.broker_url) as requester:
        order, message_id = put_off(own, requester, simulated)
        assert worker.terminate() == 0
        for end in ("", "-wal", "-shm"):
            (workshop.folder / f"journal.db{end}").unlink(missing_ok=True)
        workshop.worker(ECS_RETRY_DELAYS="8")
        order_refused(requester.order_result_of(message_id, 60))
        eventually(lambda: requester.depth("ecs.dead") == 1)
        replay = ("dead", "replay", "--id", order["orderId"], "--yes")
        assert workshop.command(*replay).returncode == 7
        done = workshop.command(*replay, "--vouch")
        assert done.returncode == 0, done.stdout + done.stderr
        replayed = requester.wait(
            lambda one: one.correlation_id == message_id and one.body.get("code") == 200, 60
        )
        assert replayed.body["data"]["orderId"] == order["orderId"]
    assert workshop.tenant().actions(order["productList"][0]["instanceId"]).count("resize") == 1


def test_a_retry_queue_holds_a_pass_and_no_token(
    own: Guarded, simulated: SimulatedOpenStack
) -> None:
    """The journal knows the word by its hash alone. Whoever has the word may bring that message
    back, and no other.
    """
    workshop, url = own.workshop, own.workshop.broker_url
    declare(url, topology((600,)))
    workshop.worker(ECS_RETRY_DELAYS="600")
    with Requester(url) as requester:
        order, message_id = put_off(own, requester, simulated)
        eventually(lambda: requester.depth("ecs.retry.600") == 1)
        (waiting,) = in_queue(url, "ecs.retry.600")
        word, masked = waiting.headers[RESUME_TOKEN_HEADER], json.loads(waiting.body)
        assert masked == order | {"token": "***"}
        assert word not in workshop.journal_dump()
        assert hash_of(word) in workshop.journal_dump()
        assert word not in workshop.logs()
        wrong = [
            (masked, {}),
            (masked, {RESUME_TOKEN_HEADER: new_resume_token()}),
            (masked, {RESUME_TOKEN_HEADER: hash_of(word)}),
            (masked, {RESUME_TOKEN_HEADER: word[:-1]}),
            (masked, {RESUME_TOKEN_HEADER: 7}),
            (masked, {"x-death": [{"queue": "ecs.retry.600", "reason": "expired", "count": 1}]}),
            (
                masked,
                {"x-ecs-attempts": 1, "x-ecs-routing-key": "ecs.orders order.changeConfigure"},
            ),
            (masked | {"orderId": new_order_id()}, {RESUME_TOKEN_HEADER: word}),
            (masked | {"billType": "monthly"}, {RESUME_TOKEN_HEADER: word}),
            (masked | {"tenant_id": "tenant-b"}, {RESUME_TOKEN_HEADER: word}),
            (masked | {"token": "Bearer ***"}, {RESUME_TOKEN_HEADER: word}),
            (masked | {"token": altered(own.issuer)}, {RESUME_TOKEN_HEADER: word}),
        ]
        for body, headers in wrong:
            forged = requester.order(json.dumps(body), headers=headers)
            if (
                body["orderId"] != order["orderId"]
            ):  # nobody can answer another's order: that one is parked only
                order_refused(requester.order_result_of(forged, 60))
        eventually(lambda: requester.depth("ecs.dead") == len(wrong), 60)
        assert len([one for one in requester.heard if one.source is Source.ORDER_RESULT]) == 1
        assert RESUME_TOKEN_HEADER not in {
            name for one in in_queue(url, "ecs.dead") for name in one.headers
        }
        assert workshop.tenant().actions(order["productList"][0]["instanceId"]) == ["create"]
        again = requester.order(
            json.dumps(masked), headers={RESUME_TOKEN_HEADER: word}, correlation_id=message_id
        )
        assert again != message_id
        assert requester.order_result_of(message_id).body["code"] == 200
    assert workshop.tenant().actions(order["productList"][0]["instanceId"]).count("resize") == 1


def test_a_parked_order_is_authorised_by_the_operator_who_replays_it(own: Guarded) -> None:
    """Its token was refused, and is masked: it proves nothing. What he did is recorded."""
    workshop = own.workshop
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    order = own.order(server_id, token=own.token(exp=int(time.time()) - 3600))
    with Requester(workshop.broker_url) as requester:
        message_id = requester.order(json.dumps(order))
        order_refused(requester.order_result_of(message_id))
        eventually(lambda: requester.depth("ecs.dead") == 1)
        refused_replay = workshop.command(
            "dead", "replay", "--all", "--yes", "--operator", "night-shift"
        )
        assert refused_replay.returncode == 7, refused_replay.stdout + refused_replay.stderr
        assert "--vouch" in refused_replay.stderr
        assert requester.depth("ecs.dead") == 1, "it stays where it was"
        rehearsed = json.loads(
            workshop.command("dead", "replay", "--all", "--dry-run", "-o", "json").stdout
        )
        assert [(one["would"], one["detail"].partition(";")[0]) for one in rehearsed] == [
            ("not_proven", "not proven who sent it")
        ]
        done = workshop.command(
            "dead", "replay", "--all", "--yes", "--vouch", "--operator", "night-shift", "-o", "json"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (batch,) = json.loads(workshop.command("dead", "replays", "-o", "json").stdout)
        (member,) = json.loads(
            workshop.command("dead", "replays", batch["batch"], "-o", "json").stdout
        )
        assert (member["operator"], member["vouched"]) == ("night-shift", True)
        replayed = requester.wait(
            lambda one: one.correlation_id == message_id and one.body.get("code") == 200, 60
        )
        assert replayed.body["data"]["orderId"] == order["orderId"]
        # A copy of it without the operator is a forgery still, and nobody can answer what is known.
        copy = requester.order(json.dumps(order | {"token": "***"}))
        eventually(lambda: requester.depth("ecs.dead") == 1)
        assert not [one for one in requester.heard if one.correlation_id == copy]
    assert workshop.tenant().actions(server_id).count("resize") == 1
    assert "night-shift" in workshop.logs()
    assert "night-shift" in workshop.journal_dump()


def test_what_was_parked_before_anybody_looked_who_sent_it_needs_somebody_who_vouches(
    own: Guarded,
) -> None:
    """Its form was wrong: a forger would choose that way rather than to be refused for his
    identity.

    What the worker had proven before it gave the request up needs nobody.
    """
    workshop = own.workshop
    workshop.worker()
    server_id = workshop.tenant().make_server(disk=None)
    right = own.order(server_id)
    conflicting = right | {"consoleOrderFlowId": "another"}
    with Requester(workshop.broker_url) as requester:
        unread = requester.order(
            json.dumps(right | {"orderId": "1", "productList": []}),
            headers={"x-ecs-identity": "proven"},
        )
        assert requester.order_result_of(unread).body["code"] == PARAMETER
        assert requester.order_result_of(requester.order(json.dumps(right))).body["code"] == 200
        known = requester.order(json.dumps(conflicting))
        assert requester.order_result_of(known).body["data"]["reason"] == "conflicting_duplicate"
        eventually(lambda: requester.depth("ecs.dead") == 2)
        rehearsed = json.loads(
            workshop.command("dead", "replay", "--all", "--dry-run", "-o", "json").stdout
        )
        assert [(one["id"], one["detail"].startswith("not proven")) for one in rehearsed] == [
            (unread, True),
            (known, False),
        ]
        done = workshop.command("dead", "replay", "--all", "--yes", "-o", "json")
        assert (done.returncode, json.loads(done.stdout)[0]["done"]) == (6, 1), (
            done.stdout + done.stderr
        )
        assert "not proven" in done.stderr


def test_an_order_that_is_put_in_again_acts_in_the_tenant_that_its_token_had_proven(
    own: Guarded,
) -> None:
    """Not in the project that owns the server it names: whoever has a token would have others'
    servers changed.
    """
    workshop = own.workshop
    workshop.worker()
    others = workshop.tenant("tenant-b").make_server(disk=None)
    first = own.order(str(uuid.uuid4()))
    forged = own.order(others, orderId=first["orderId"], token=own.token())
    with Requester(workshop.broker_url) as requester:
        assert requester.order_result_of(requester.order(json.dumps(first))).body["code"] == UNKNOWN
        message_id = requester.order(json.dumps(forged), headers={"x-ecs-project": "tenant-b"})
        assert (
            requester.order_result_of(message_id).body["data"]["reason"] == "conflicting_duplicate"
        )
        eventually(lambda: requester.depth("ecs.dead") == 1)
        (rehearsed,) = json.loads(
            workshop.command("dead", "replay", "--all", "--dry-run", "-o", "json").stdout
        )
        assert rehearsed["would"] == "parked"
        for words in ([], ["--as-tenant", "tenant-b"]):
            done = workshop.command("dead", "replay", "--all", "--yes", *words, "-o", "json")
            assert done.returncode == 0, done.stdout + done.stderr
            again = requester.order_result_of(message_id)
            assert again.body["data"]["reason"] == "conflicting_duplicate"
            eventually(lambda: requester.depth("ecs.dead") == 1)
    assert "resize" not in workshop.tenant("tenant-b").actions(others)


# What the operator is told.


def findings(workshop: Workshop, **settings: str) -> tuple[int, list[dict[str, str]]]:
    """The exit code of `check`, and its lines about the keys."""
    done = workshop.command("check", "-o", "json", **settings)
    return done.returncode, [row for row in json.loads(done.stdout) if row["check"] == "keys"]


def test_check_looks_at_the_key_set(own: Guarded, tmp_path: Path) -> None:
    code, (keys, issuer) = findings(own.workshop)
    assert (code, keys["result"], issuer["result"]) == (0, "ok", "warning")
    assert keys["found"] == f"1 usable key at {own.server.url}"
    assert "ECS_JWT_ISSUER" in issuer["advice"]
    code, (keys,) = findings(own.workshop, ECS_JWT_ISSUER=own.issuer.name)
    assert (code, keys["result"]) == (0, "ok")
    own.server.instead = (200, {}, b'{"keys": []}')
    code, (keys,) = findings(own.workshop)
    assert (code, keys["result"]) == (5, "failed")
    assert "ECS_JWT_JWKS" in keys["advice"]
    own.server.stop()
    code, (keys,) = findings(own.workshop)
    assert (code, keys["result"]) == (4, "unreachable")
    own.server.start()
    code, (keys,) = findings(own.workshop, ECS_JWT_JWKS="", ECS_TRUST_PUBLISHERS="true")
    assert (code, keys["result"]) == (0, "ok")
    done = own.workshop.command("check", "-o", "json", ECS_JWT_JWKS=str(tmp_path / "missing.json"))
    assert (done.returncode, "ECS_JWT_JWKS" in done.stdout) == (3, True)


def test_the_python_client_and_the_command_line_prove_who_asks_by_their_token(
    guarded: Guarded,
) -> None:
    shop, token = guarded.workshop, guarded.token()
    with EcsClient(shop.broker_url, user=USER, token=guarded.token) as client:
        assert client.servers.list().servers is not None
        with pytest.raises(IdentityNotProven):
            client.servers.list(token=guarded.issuer.token(project="tenant-a")[:-4])
        order = guarded.order(str(uuid.uuid4()), orderId=new_order_id())
        order.pop("token", None)
        assert client.orders.submit(order) == order["orderId"]  # the token is added
        last = list(client.orders.follow(order["orderId"], timeout=60))[-1]
        assert (last.final, last.status) == (True, "failed")
        assert client.orders.show(order["orderId"]).result is not None
        assert token[:20] not in repr(client)
    file = shop.folder / "token"
    file.write_text(f"Bearer {token}\n")
    asked = ("call", "server.list", "--user", USER, "-o", "jsonl")
    for words, settings in (
        ((*asked, "--token-file", "token"), {}),
        (asked, {"ECS_TOKEN": token}),
    ):
        done = shop.command(*words, **settings)
        assert (done.returncode, json.loads(done.stdout)["code"]) == (0, 200), done.stderr
    refused = shop.command(*asked)
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (5, IDENTITY)
