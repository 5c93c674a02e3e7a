"""server.list, server.show and tags, on the simulated cloud and on the real one."""

import re
from typing import Any

import pytest

from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.furnished import FEES, Furnished, furnish
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def ask(requester: Requester, operation: str, **fields: Any) -> dict[str, Any]:
    """The answer's body."""
    body: dict[str, Any] = requester.result_of(requester.command(operation, **fields)).body
    return body


def listed(requester: Requester, **fields: Any) -> tuple[int, list[str]]:
    """Return how many there are in all, and the names on the page."""
    body = ask(requester, "server.list", **fields)
    assert body["code"] == 200, body
    return body["data"]["totalCount"], [one["name"] for one in body["data"]["servers"]]


def test_a_server_that_has_everything_is_shown_with_everything(
    requester: Requester, tenant: Tenant
) -> None:
    made = furnish(tenant)

    def show() -> dict[str, Any]:
        server: dict[str, Any] = ask(requester, "server.show", server_id=made.server_id)["data"][
            "server"
        ]
        return server

    # Another test may have asked for the subnets a moment ago: they may be ten seconds old.
    eventually(lambda: all(one["subnet_name"] for one in show()["nics"]))
    shown = show()
    volumes = tenant.volumes(made.server_id)
    assert shown["image"].pop("name") == "cirros-like"
    assert shown == expected(tenant, made, volumes, shown) | {
        "keyCloakUserId": FEES["keycloak_user_id"],
        "keyCloakUserName": FEES["keycloak_user_name"],
    }
    (in_list,) = ask(requester, "server.list", searchField="uuid", searchValue=made.server_id)[
        "data"
    ]["servers"]
    in_list["image"].pop("name")
    assert in_list == expected(tenant, made, volumes, shown)


def expected(
    tenant: Tenant, made: Furnished, volumes: list[dict[str, Any]], shown: dict[str, Any]
) -> dict[str, Any]:
    """Return what the document calls all that was made; ports, addresses and hosts are the cloud's
    choice.
    """
    server = tenant.server(made.server_id)
    chosen = {
        (one["subnet_id"]): (one["mac_address"], one["fixed_ip"], one["portid"])
        for one in shown["nics"]
    }
    assert [one["fixed_ip"] for one in shown["nics"]] == [
        address["addr"]
        for name in ("tenant-a-net", "second-net")
        for address in server["addresses"][name]
        if address["OS-EXT-IPS:type"] == "fixed"
    ]
    assert shown["host"]
    return {
        "regionId": REGION,
        "regionID": REGION,
        "availability_zone": "nova",
        "name": "furnished",
        "id": made.server_id,
        "status": "active",
        "translation": "运行中",
        "task_state": None,
        "image": {"id": tenant.image, "system": "cirros", "systemType": None, "tags": []},
        "root_volume": {"volumetype": "SATA", "size": 10},
        "data_volumes": [
            {
                "volumetype": one["volume_type"],
                "volumeid": one["id"],
                "volumename": one["name"],
                "size": one["size"],
            }
            for one in volumes[1:]
        ],
        "flavor": {
            "disk": 10,
            "ephemeral": 0,
            "extra_specs": {},
            "original_name": "S1.small.1",
            "ram": 1024,
            "swap": 0,
            "vcpus": 1,
        },
        "security_groups": [{"name": "default"}],
        "vpcid": made.router["id"],
        "vpcname": made.router["name"],
        "nics": [
            {
                "subnet_id": subnet["id"],
                "subnet_name": subnet["name"],
                "subnet_cidr": subnet["cidr"],
                "network_id": subnet["network_id"],
                "mac_address": chosen[subnet["id"]][0],
                "fixed_ip": chosen[subnet["id"]][1],
                "portid": chosen[subnet["id"]][2],
            }
            for subnet in (made.first, made.second)
        ],
        "eip": {
            "eipid": made.floating_ip["id"],
            "iptype": "5 _bgp",
            "bandwidth": 10,
            "chargemode": "Bandwidth",
            "ip_addr": made.floating_ip["floating_ip_address"],
        },
        "key_name": "sshkey-123",
        "feeData": {
            "chargetype": "monthly",
            "purchasetime": "1",
            "startFeeTime": "2026-11-01 08:00:00",
            "nextFeeTime": "2026-12-01 08:00:00",
        },
        "created": server["created"],
        "hostId": server["hostId"],
        "host": shown["host"],
    }


def test_servers_are_searched_sorted_and_paged(requester: Requester, tenant: Tenant) -> None:
    ids = {
        name: tenant.make_server(name=name, disk=None) for name in ("web-a.1", "web-b(2", "WEB-c")
    }
    tenant.act(ids["web-b(2"], {"os-stop": None})
    tenant.wait(ids["web-b(2"], lambda server: server["status"] == "SHUTOFF")
    by_name = {"searchField": "name", "sortField": "name", "sortOrder": "ascend"}
    assert listed(requester, searchValue="web-", **by_name) == (3, ["WEB-c", "web-a.1", "web-b(2"])
    assert listed(requester, searchValue="web-", pageNo="2", pageSize=2, **by_name) == (
        3,
        ["web-b(2"],
    )
    assert listed(requester, searchValue="web-", pageNo=9, **by_name) == (3, [])
    # As the document's own table calls it.
    assert listed(requester, searchValue="web-", page=2, pageSize="2", **by_name) == (
        3,
        ["web-b(2"],
    )
    assert listed(requester, sortField="uuid", searchValue=ids["WEB-c"]) == (1, ["WEB-c"])
    # A name's characters are only characters.
    assert listed(requester, searchValue="a.1", **by_name) == (1, ["web-a.1"])
    assert listed(requester, searchValue="a.*", **by_name) == (0, [])
    assert listed(requester, searchValue="B(", **by_name) == (1, ["web-b(2"])
    assert listed(requester, searchField="uuid", searchValue=ids["WEB-c"].upper()) == (1, ["WEB-c"])
    assert listed(requester, searchValue=ids["WEB-c"]) == (1, ["WEB-c"])
    assert "web-b(2" in listed(requester, searchField="status", searchValue="ShutOff")[1]
    assert not set(listed(requester, searchField="status", searchValue="unusual")[1]) & set(ids)
    assert listed(requester, searchField="uuid", searchValue="../servers") == (0, [])
    assert (
        "web-a.1" in listed(requester, searchField="status", searchValue="active", pageSize=100)[1]
    )
    newest = [name for name in listed(requester, pageSize=100)[1] if name in ids]
    # Nova's times are whole seconds: of those made in the same one, the lower id comes first.
    by_id = sorted(ids, key=lambda name: ids[name])
    assert newest == sorted(
        by_id, key=lambda name: str(tenant.server(ids[name])["created"]), reverse=True
    )


@pytest.mark.long_on_real
def test_pages_make_up_the_whole_list_in_its_order(requester: Requester, tenant: Tenant) -> None:
    # One name is there twice, one in capitals, one not of letters alone: databases compare them in
    # ways of their own.
    for name in ("page-b", "PAGE-C", "page-a", "page-b", "page_d"):
        tenant.make_server(name=name, disk=None)
    for field, shown in (("createTime", "created"), ("name", "name"), ("status", "status")):
        for order in ("ascend", "descend"):
            asked = {"sortField": field, "sortOrder": order}
            whole = ask(requester, "server.list", pageSize=100, **asked)["data"]
            by_id = sorted(whole["servers"], key=lambda one: one["id"])
            assert whole["servers"] == sorted(
                by_id, key=lambda one, shown=shown: one[shown], reverse=order == "descend"
            )
            last = len(whole["servers"]) // 2 + 2
            pages = [
                ask(requester, "server.list", pageNo=n, pageSize=2, **asked)["data"]
                for n in range(1, last + 1)
            ]
            assert [one for page in pages for one in page["servers"]] == whole["servers"]
            assert (
                {page["totalCount"] for page in pages}
                == {whole["totalCount"]}
                == {len(whole["servers"])}
            )
            assert pages[-1]["servers"] == []


def test_a_server_that_is_newer_than_the_list_of_ports_is_shown_with_its_own(
    requester: Requester, tenant: Tenant, simulated: SimulatedOpenStack, cloud: Any
) -> None:
    if cloud is not simulated:
        pytest.skip("how long the real Nova takes to list and to build is not to be chosen")
    before = len(simulated.calls())
    cloud.fault("api.nova", match="^GET .*/servers/detail", held=True)
    message_id = requester.command("server.list", pageSize=100)
    wanted = ("nova GET .*/servers/detail", "neutron GET .*/ports")
    eventually(
        lambda: all(
            any(re.match(one, call) for call in simulated.calls()[before:]) for one in wanted
        )
    )
    networks = [
        {"uuid": one.id}
        for one in tenant.connection.network.networks()
        if not one.is_router_external
    ]
    server_id = tenant.make_server(name="newer", disk=None, networks=networks[:1])
    cloud.clear_faults()
    servers = requester.result_of(message_id).body["data"]["servers"]
    (shown,) = [one for one in servers if one["id"] == server_id]
    assert shown["nics"][0]["fixed_ip"]


@pytest.mark.once_on_real
@pytest.mark.parametrize("field", ["ip", None])
def test_a_server_is_found_by_a_part_of_its_own_address(
    requester: Requester, tenant: Tenant, field: str | None
) -> None:
    made = furnish(tenant)
    (found,) = ask(requester, "server.list", searchField="uuid", searchValue=made.server_id)[
        "data"
    ]["servers"]
    address = found["nics"][1]["fixed_ip"]
    assert listed(requester, searchField=field, searchValue=address[1:]) == (1, ["furnished"])
    assert listed(requester, searchField=field, searchValue=address.replace(".", "x")) == (0, [])
    assert listed(requester, searchField=field, searchValue=found["eip"]["ip_addr"]) == (0, [])


def test_an_unusual_server_is_found(requester: Requester, tenant: Tenant, cloud: Any) -> None:
    server_id = tenant.make_server(name="broken", disk=None)
    admin = Tenant(cloud.clouds_yaml, "admin")
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    admin.close()
    well = tenant.make_server(name="well", disk=None)
    for field in ("searchField", "sortField"):
        names = listed(requester, **{field: "status", "searchValue": "UNUSUAL"}, pageSize=100)[1]
        assert ("broken" in names, "well" in names) == (True, False)
    assert well in str(ask(requester, "server.list", sortField="status", pageSize=100)["data"])
    # Nova tags no server in ERROR.
    answer = ask(requester, "server.tags.update", server_id=server_id, tags="x")
    assert (answer["code"], answer["message"]) == (
        "101.001012",
        "存在未知状态的云服务器，请重新选择云服务器",
    )
    (shown,) = ask(requester, "server.list", searchValue=server_id)["data"]["servers"]
    assert (shown["status"], shown["translation"]) == ("error", "错误/创建失败")


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"pageNo": 0}, "pageNo"),
        ({"pageSize": "101"}, "pageSize"),
        ({"sortField": "host"}, "sortField"),
        ({"sortOrder": "up"}, "sortOrder"),
        ({"searchField": "host", "searchValue": "x"}, "searchField"),
        ({"searchValue": ["x"]}, "searchValue"),
        ({"pageNo": 1, "page": 2}, "page"),
        ({"sortField": "ip", "searchField": "name"}, "sortField"),
    ],
)
def test_a_list_that_is_wrongly_asked_for_is_refused(
    requester: Requester, fields: dict[str, Any], parameter: str
) -> None:
    assert ask(requester, "server.list", **fields)["message"] == f"参数{parameter}不符合规范"


def test_another_tenants_server_is_not_there(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    for operation in ("server.show", "server.tags.list"):
        answer = ask(requester, operation, server_id=server_id, tenant="tenant-b")
        assert (answer["code"], answer["message"]) == ("101.001033", f"云服务器{server_id}不存在")
    answer = ask(requester, "server.tags.update", server_id=server_id, tags="x", tenant="tenant-b")
    assert answer["code"] == "101.001033"
    assert server_id not in str(ask(requester, "server.list", tenant="tenant-b", pageSize=100))


def test_tags_are_replaced_as_a_whole(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    assert ask(requester, "server.tags.list", server_id=server_id)["data"] == {"tags": []}
    assert ask(requester, "server.tags.update", server_id=server_id, tags=" web , 数据库,web") == {
        "code": 200,
        "message": "OK",
        "data": None,
    }
    assert sorted(ask(requester, "server.tags.list", server_id=server_id)["data"]["tags"]) == [
        "web",
        "数据库",
    ]
    assert ask(requester, "server.tags.update", server_id=server_id, tags="")["code"] == 200
    assert tenant.server(server_id)["tags"] == []
    for wrong in ("a,,b", "a/b", "x" * 61, ",".join(f"t{n}" for n in range(51)), None):
        assert (
            ask(requester, "server.tags.update", server_id=server_id, tags=wrong)["code"]
            == "101.001002"
        )
