"""Clouds that are without some of Neutron's extensions, or whose services are old."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.documents import change_configure
from sandbox.requester import Requester
from tests.openstack.conftest import Cloud
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import new_servers
from tests.support.new_orders import new, records
from tests.support.orders import carried_out, paid, product_of, reported, soft_down
from tests.support.stage import dying
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

#: All that the simulated Neutron can be without.
EXTENSIONS = (
    "router",
    "qos",
    "security-group",
    "quota_details",
    "external-net",
    "standard-attr-tag",
    "standard-attr-timestamp",
)
UNKNOWN = "00000000-0000-4000-8000-000000000000"
#: Seconds for which an extension counts as missing in these tests.
MISSING = 2.0


@pytest.fixture
def own(broker: PrivateBroker, cloud: Cloud, tmp_path: Path) -> Iterator[Workshop]:
    """A worker of the test's own: what it has found missing it remembers."""
    url = broker.add_vhost(f"extensions-{tmp_path.name}")
    declare(url, topology())
    with Workshop(url, cloud, tmp_path) as found:
        yield found


@contextmanager
def without(cloud: Cloud, *extensions: str) -> Iterator[None]:
    """The simulated cloud is without these; the real Neutron runs without its router plugin."""
    if not isinstance(cloud, ControlPlane):
        cloud.be_without(*(extensions or EXTENSIONS))
        yield
        cloud.clear_faults()
        return
    cloud.override("neutron.conf", "[DEFAULT]\nservice_plugins =\n", "neutron-api")
    try:
        yield
    finally:
        cloud.override("neutron.conf", None, "neutron-api")


def view_of(requester: Requester, server_id: str) -> dict[str, Any]:
    message_id = requester.command("server.show", server_id=server_id)
    result = requester.result_of(message_id, 60)
    assert result.body["code"] == 200, result.body
    found: dict[str, Any] = result.body["data"]["server"]
    return found


def listed(requester: Requester, server_id: str) -> dict[str, Any]:
    message_id = requester.command("server.list", searchField="uuid", searchValue=server_id)
    result = requester.result_of(message_id, 60)
    assert result.body["code"] == 200, result.body
    (found,) = result.body["data"]["servers"]
    return dict(found)


def error_of(answer: Any) -> tuple[int, str, str]:
    error = answer.json()["NeutronError"]
    return answer.status_code, error["type"], error["message"]


def test_neutron_has_words_of_its_own_for_a_collection_that_it_does_not_have(
    tenant: Tenant, cloud: Cloud
) -> None:
    """QoS is missing on the real control plane, too."""
    missing = (404, "HTTPNotFound", "The resource could not be found.")
    network = tenant.connection.network
    assert error_of(network.get("/qos/policies")) == missing
    assert error_of(network.get(f"/qos/policies/{UNKNOWN}")) == missing
    status, kind, _ = error_of(network.delete(f"/ports/{UNKNOWN}"))
    assert (status, kind == "HTTPNotFound") == (404, False)


@pytest.mark.long_on_real
@pytest.mark.timeout(600)
def test_every_order_goes_on_and_views_have_nulls_without_extensions(
    own: Workshop, cloud: Cloud
) -> None:
    tenant = own.tenant()
    shown, floating_ip = tenant.make_server_with_floating_ip(disk=2)
    gone, changed, renewed, stopped, deleted = (
        tenant.make_server(disk=disk) for disk in (2, 10, None, None, 2)
    )
    before = records(tenant)
    networks = tenant.connection.network.get("/networks").json()["networks"]
    network = next(one["id"] for one in networks if one["name"] == "tenant-a-net")
    order = new(tenant, chosen={"networkId": network, "tags": ["web"]})
    dying(own, [], cloud={"missing_ttl": MISSING})
    with Requester(own.broker_url) as requester:
        whole = view_of(requester, shown)
        assert whole["eip"]["eipid"] == floating_ip
        assert whole["vpcid"] is not None
        with without(cloud):
            # Routers may be seconds old.
            eventually(lambda: view_of(requester, shown)["vpcid"] is None, 60)
            bare = view_of(requester, shown)
            assert (bare["eip"], bare["vpcid"], bare["vpcname"]) == (None, None, None)
            assert bare["nics"] == whole["nics"]
            assert listed(requester, shown)["eip"] is None
            orders = [
                paid("unsubscribe", gone),
                json.loads(change_configure(changed, tenant.image)) | {"tenant_id": "tenant-a"},
                paid("renew", renewed),
                order,
            ]
            results = [carried_out(requester, one)[0] for one in orders]
            assert [reported(one) for one in results] == [(200, "success", True)] * 4
            message = soft_down((stopped, "stopServer"), (deleted, "delete"), tenant="tenant-a")
            result, _ = carried_out(requester, message)
            assert result.body["code"] == 200, result.body
            tenant.adopt(product_of(results[3])["instanceId"])
        # It has come back.
        eventually(lambda: view_of(requester, shown)["vpcid"] == whole["vpcid"], 60)
        assert view_of(requester, shown)["eip"]["eipid"] == floating_ip
    assert tenant.is_gone(gone)
    assert tenant.is_gone(deleted)
    assert len(records(tenant).servers - before.servers) == 1


@pytest.mark.timeout(120)
def test_what_is_missing_is_not_asked_for_by_every_list(workshop: Workshop, simulated: Any) -> None:
    server_id = workshop.tenant().make_server(disk=None)
    workshop.worker()

    def asked() -> int:
        return sum("neutron GET" in one and "/floatingips" in one for one in simulated.calls())

    with without(simulated), Requester(workshop.broker_url) as requester:
        listed(requester, server_id)
        before = asked()
        for _ in range(5):
            listed(requester, server_id)
        assert asked() == before > 0


@pytest.mark.once_on_real
@pytest.mark.timeout(120)
@pytest.mark.parametrize("rule", [{"status": 503, "times": 2}, {"status": 502, "times": 2}])
def test_a_neutron_that_is_down_is_not_without_its_extensions(
    own: Workshop, cloud: Any, rule: dict[str, Any]
) -> None:
    tenant = own.tenant()
    server_id, floating_ip = tenant.make_server_with_floating_ip(disk=None)
    cloud.fault("api.neutron", match="/(routers|floatingips)", error="overloaded", **rule)
    own.worker()
    with Requester(own.broker_url) as requester:
        found = view_of(requester, server_id)
    assert found["eip"]["eipid"] == floating_ip
    assert found["vpcid"] is not None


@pytest.mark.timeout(120)
def test_a_proxy_that_knows_no_way_is_not_a_cloud_without_extensions(
    own: Workshop, cloud: Any
) -> None:
    """Its 404 has other words: it is no answer of Neutron's."""
    tenant = own.tenant()
    server_id, floating_ip = tenant.make_server_with_floating_ip(disk=None)
    cloud.fault("api.neutron", match="/floatingips", error="default backend", status=404)
    own.worker()
    with Requester(own.broker_url) as requester:
        result = requester.result_of(requester.command("server.show", server_id=server_id), 60)
        assert result.body["code"] == "101.001040"
        order = paid("unsubscribe", server_id)
        result, _ = carried_out(requester, order)
        assert reported(result) == ("101.001040", "fail", False)
        assert not tenant.is_gone(server_id)
        cloud.clear_faults()
        assert view_of(requester, server_id)["eip"]["eipid"] == floating_ip


@pytest.mark.timeout(120)
def test_security_groups_cannot_be_chosen_where_there_are_none(
    workshop: Workshop, simulated: Any
) -> None:
    tenant = workshop.tenant()
    before = records(tenant)
    order = new(tenant, chosen={"securityGroups": [uuid.uuid4().hex]})
    workshop.worker()
    with without(simulated, "security-group"), Requester(workshop.broker_url) as requester:
        result, _ = carried_out(requester, order)
    assert reported(result) == ("101.001002", "fail", False)
    assert "securityGroups" in result.body["message"]
    assert records(tenant) == before


@pytest.mark.timeout(120)
def test_disks_are_found_by_their_mark_though_cinder_takes_no_such_filter(
    workshop: Workshop, simulated: Any
) -> None:
    """One that is killed in the middle goes on with the disks that it has made, and with nobody
    else's.
    """
    tenant = workshop.tenant()
    simulated.fault(
        "api.cinder",
        match="[?&]metadata=",
        error="Invalid filters metadata are found in query options.",
        status=400,
    )
    asked = new_servers("unfiltered", "volume:2.0", 2)(tenant, simulated)
    worker = dying(workshop, [Hold(asked.message_id, Instant.CALL_EXECUTED, asked.effect)])
    with Requester(workshop.broker_url) as requester:
        asked.publish(requester)
        eventually(lambda: not worker.alive, 60)
        workshop.worker()
        await_ends(requester, [asked])
        simulated.clear_faults()
        check(requester.heard, [asked], tenant, simulated.executed())


def test_check_tells_of_old_services_and_missing_extensions(
    workshop: Workshop, simulated: Any
) -> None:
    simulated.be_without("router", nova="2.60", cinder="3.50")
    done = workshop.command("check", "-o", "json")
    simulated.clear_faults()
    assert done.returncode == 5, done.stdout + done.stderr
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert found["microversions"]["found"] == (
        "compute speaks up to 2.60, 2.67 is needed; volume speaks up to 3.50, 3.60 is needed"
    )
    assert found["extensions"]["found"] == "Neutron is without qos, router"
    simulated.fault("api.neutron", match="/extensions", error="overloaded", status=503)
    done = workshop.command("check", "-o", "json")
    simulated.clear_faults()
    found = {row["check"]: row["result"] for row in json.loads(done.stdout)}
    assert (done.returncode, found["keystone"], found["extensions"]) == (4, "ok", "unreachable")
    well = workshop.command("check", "-o", "json")
    assert "microversions" not in {row["check"] for row in json.loads(well.stdout)}


@pytest.mark.parametrize(("service", "newest"), [("compute", "2.999"), ("block_storage", "3.999")])
def test_a_microversion_that_is_too_new_is_refused_alike_by_both_clouds(
    tenant: Tenant, service: str, newest: str
) -> None:
    answer = getattr(tenant.connection, service).get("/limits", microversion=newest)
    assert answer.status_code == 406
    (error,) = answer.json().values()
    assert error["message"].startswith(f"Version {newest} is not supported by the API. Minimum is ")
