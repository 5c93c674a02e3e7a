"""Views beside golden files made from the API document's own examples; its slips of the pen are put
right.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.images.queries import image_view
from handlers.openstack.cinder import Volume
from handlers.openstack.glance import Image
from handlers.openstack.nova import Server
from handlers.servers import view
from handlers.servers.view import ViewSources, inner_addresses
from messages.updates import is_unusual, server_words

GOLDEN = Path(__file__).parent / "golden"
SERVER, IMAGE = "9168b536-cd40-4630-b43f-b259807c6e87", "1189efbf-d48b-46ad-a823-94b942e2a000"
ROUTER, SUBNET = "0dae26c9-9a70-4392-93f3-87d53115d171", "157ee789-03ea-45b1-a698-76c92660dd83"


def server_view(server: Server, around: ViewSources) -> dict[str, Any]:
    return view.server_view(server, around).model_dump(mode="json")


def server_details(server: Server, around: ViewSources) -> dict[str, Any]:
    return view.server_details(server, around).model_dump(mode="json")


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return found


def server(**fields: Any) -> Server:
    """The document's server as Nova would say it."""
    expected = golden("server")
    body = {
        "id": SERVER,
        "tenant_id": "p",
        "name": "newserver",
        "status": "ACTIVE",
        "OS-EXT-STS:task_state": "xxx",
        "updated": "2012-08-20T21:11:09Z",
        "created": "2012-08-20T21:11:09Z",
        "flavor": expected["flavor"],
        "image": "",
        "key_name": "sshkey-123",
        "hostId": "12efd5567jklu",
        "OS-EXT-AZ:availability_zone": "nova",
        "security_groups": [{"name": "sg_aa1"}, {"name": "sg_aa1"}],
        "metadata": {
            "charge_type": "prePaid",
            "purchase_time": "1",
            "start_fee_time": "2012-08-20 21:11:09",
            "next_fee_time": "2012-08-20 21:11:09",
            "keycloak_user_id": "u",
            "keycloak_user_name": "n",
        },
        "addresses": {
            "net": [{"addr": "10.20.30.137", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:dc:d1:aa"}]
        },
        "os-extended-volumes:volumes_attached": [{"id": one} for one in ("bbb", "zzz", "root")],
        **fields,
    }
    return Server.from_api(body)


def volume(volume_id: str, name: str, size: int, device: str, **fields: Any) -> Volume:
    return Volume.from_api(
        {
            "id": volume_id,
            "name": name,
            "status": "in-use",
            "size": size,
            "volume_type": "SATA",
            "created_at": "2012-08-20T21:11:09",
            "attachments": [{"server_id": SERVER, "device": device}],
            **fields,
        }
    )


def port(port_id: str, device_id: str, owner: str, address: str) -> dict[str, Any]:
    return {
        "id": port_id,
        "device_id": device_id,
        "device_owner": owner,
        "mac_address": "fa:16:3e:dc:d1:aa",
        "network_id": "5d0180c1-ddaa-4582-9111-6332e0b091e1",
        "fixed_ips": [{"subnet_id": SUBNET, "ip_address": address}],
        "created_at": "2012-08-20T21:11:09Z",
    }


AROUND = ViewSources(
    region="cn-north-3",
    volumes={
        "root": volume(
            "root", "", 50, "/dev/vda", bootable="true", volume_image_metadata={"image_id": IMAGE}
        ),
        "zzz": volume("zzz", "aaa", 100, "/dev/vdb"),
        "bbb": volume("bbb", "ccc", 100, "/dev/vdc"),
    },
    images={
        IMAGE: Image(
            IMAGE,
            "centos70X64",
            "active",
            "public",
            "x",
            False,
            "",
            {"tags": ["xxx", "xxx"], "os_distro": "Centos", "systemType": "Linux"},
        )
    },
    subnets={SUBNET: {"id": SUBNET, "name": "xxxx", "cidr": "xxxx"}},
    routers={ROUTER: {"id": ROUTER, "name": "myvpc"}},
    ports=[
        port("r", ROUTER, "network:router_interface_distributed", "10.20.30.1"),
        port("xxx", SERVER, "compute:nova", "10.20.30.137"),
    ],
    floating_ips=[
        {
            "id": "xxx",
            "port_id": "xxx",
            "floating_ip_address": "100.100.100.100",
            "qos_policy_id": "q",
            "tags": ["chargemode=Bandwidth"],
            "description": "iptype: 5_bgp, chargemode: Traffic, bandwidth=5",
        }
    ],
    policies={
        "q": {
            "id": "q",
            "rules": [
                {"max_kbps": 1000, "direction": "ingress"},
                {"max_kbps": 10_000, "direction": "egress"},
            ],
        }
    },
    hosts={"12efd5567jklu": "compute-1"},
)


def test_a_server_is_shown_as_in_the_document() -> None:
    expected = golden("server") | {
        "regionId": "cn-north-3",
        "translation": "运行中",
        "host": "compute-1",
    }
    assert server_view(server(), AROUND) == expected
    assert server_details(server(), AROUND) == expected | {
        "keyCloakUserId": "u",
        "keyCloakUserName": "n",
    }


def test_what_is_not_known_is_null_and_never_left_out() -> None:
    nothing = ViewSources("cn-north-3", {}, {}, {}, {}, (), (), {}, {})
    bare = server(
        metadata={},
        addresses={},
        security_groups=[],
        hostId="",
        key_name=None,
        **{"OS-EXT-AZ:availability_zone": "", "OS-EXT-STS:task_state": None},
    )
    shown = server_view(bare, nothing)
    assert shown.keys() == server_view(server(), AROUND).keys()
    assert (shown["image"], shown["eip"], shown["vpcid"], shown["nics"]) == (None, None, None, [])
    assert shown["root_volume"] == {"volumetype": None, "size": None}
    assert set(shown["feeData"].values()) == {None}


def test_a_local_root_disk_has_the_flavors_size() -> None:
    shown = server_view(server(image={"id": IMAGE}), AROUND)
    assert shown["root_volume"] == {"volumetype": None, "size": 50}
    assert [one["volumeid"] for one in shown["data_volumes"]] == ["root", "zzz", "bbb"]


def test_an_image_that_is_gone_is_known_by_the_volume() -> None:
    remembered = {"image_id": IMAGE, "image_name": "old", "os_distro": "debian", "os_type": "linux"}
    root = volume("root", "", 50, "/dev/vda", bootable="true", volume_image_metadata=remembered)
    shown = server_view(server(), replace(AROUND, images={}, volumes={"root": root}))
    assert shown["image"] == {
        "id": IMAGE,
        "name": "old",
        "system": "debian",
        "systemType": "linux",
        "tags": None,
    }


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("network:router_interface", "myvpc"),
        ("network:ha_router_replicated_interface", "myvpc"),
        ("network:router_ha_interface", None),
        ("network:router_gateway", None),
    ],
)
def test_the_vpc_is_the_router_that_joins_the_subnet_whatever_its_kind(
    owner: str, name: str | None
) -> None:
    mine = port("xxx", SERVER, "compute:nova", "10.20.30.137")
    sources = replace(AROUND, ports=[port("r", ROUTER, owner, "10.20.30.1"), mine])
    assert server_view(server(), sources)["vpcname"] == name


def test_data_disks_are_in_the_order_of_their_devices() -> None:
    made = {"root": "/dev/vda", "b": "/dev/vdb", "z": "/dev/vdz", "aa": "/dev/vdaa"}
    volumes = {
        one: volume(one, one, 1, device, bootable="true" if one in ("root", "z") else "false")
        for one, device in made.items()
    }
    attached = [{"id": one} for one in ("aa", "z", "root", "b")]
    booted_from_volume = server(**{"os-extended-volumes:volumes_attached": attached})
    shown = server_view(booted_from_volume, replace(AROUND, volumes=volumes))
    assert [one["volumeid"] for one in shown["data_volumes"]] == ["b", "z", "aa"]


def test_a_floating_ip_without_a_policy_of_its_own_is_under_its_networks() -> None:
    one = {"id": "e", "port_id": "xxx", "floating_ip_address": "1.2.3.4", "qos_policy_id": None}
    sources = replace(AROUND, floating_ips=[one | {"qos_network_policy_id": "q"}])
    assert server_view(server(), sources)["eip"]["bandwidth"] == 10


@pytest.mark.parametrize(
    ("description", "tags", "told"),
    [
        ("iptype=5 _bgp", [], ("5 _bgp", None, None)),
        (
            "",
            ["iptype=5 _bgp", "bandwidth=10", "chargemode=Bandwidth"],
            ("5 _bgp", 10, "Bandwidth"),
        ),
        ("iptype: 5 _bgp bandwidth=20  chargemode = by traffic", [], ("5 _bgp", 20, "by traffic")),
        ("bandwidth=20 Mbit/s, iptype=5 _bgp; chargemode=a=b", [], ("5 _bgp", 20, "a=b")),
        ("IPTYPE=5 _bgp\r\nbandwidth=30M\nowner=web", [], ("5 _bgp", 30, None)),
        ("iptype=5 _bgp owner=the web team", [], ("5 _bgp", None, None)),
        ("类型 iptype：5 _bgp，bandwidth：5", [], ("5 _bgp", 5, None)),
        ("iptype=5_bgp", ["iptype=5 _bgp "], ("5 _bgp", None, None)),
        ("iptype= , bandwidth=ten", [], (None, None, None)),
    ],
)
def test_what_is_noted_on_a_floating_ip_comes_out_whole(
    description: str, tags: list[str], told: Any
) -> None:
    one = {
        "id": "e",
        "port_id": "xxx",
        "floating_ip_address": "1.2.3.4",
        "description": description,
        "tags": tags,
    }
    eip = server_view(server(), replace(AROUND, floating_ips=[one]))["eip"]
    assert (eip["iptype"], eip["bandwidth"], eip["chargemode"]) == told


def test_a_floating_address_is_no_inner_one() -> None:
    kinds = [
        {"addr": "10.0.0.5", "OS-EXT-IPS:type": "fixed"},
        {"addr": "1.2.3.4", "OS-EXT-IPS:type": "floating"},
    ]
    assert inner_addresses(server(addresses={"net": kinds})) == ["10.0.0.5"]


@pytest.mark.parametrize("text", ["bandwidth=ten", "", "bandwidth"])
def test_a_bandwidth_that_nobody_tells_is_null(text: str) -> None:
    one = {"id": "e", "port_id": "xxx", "floating_ip_address": "1.2.3.4", "description": text}
    assert server_view(server(), replace(AROUND, floating_ips=[one]))["eip"] == {
        "eipid": "e",
        "iptype": None,
        "bandwidth": None,
        "chargemode": None,
        "ip_addr": "1.2.3.4",
    }


def test_an_image_is_shown_as_in_the_document() -> None:
    expected = golden("image")
    body = expected | {"created_at": "2018-09-27T08:45:55Z", "updated_at": "2018-09-27T08:47:02Z"}
    secret = {"locations": [{"url": "rbd://inside"}], "direct_url": "rbd://inside"}
    shown = image_view(Image.from_api(body | secret)).model_dump(mode="json")
    assert shown == expected | {"translation": "可用", "description": None}


@pytest.mark.parametrize(
    ("status", "task", "words"),
    [
        ("ACTIVE", "Powering-OFF", "关机中"),
        ("shutoff", None, "已关机"),
        ("ACTIVE", "image_snapshot", "运行中"),
        ("VERIFY_RESIZE", None, "变更规格待确认"),
        ("SHELVED_OFFLOADED", None, "已搁置"),
        ("NEW_IN_NOVA", None, None),
    ],
)
def test_the_tables_of_the_document_in_any_case(
    status: str, task: str | None, words: str | None
) -> None:
    assert server_words(status, task) == words


def test_unusual_is_an_error_and_what_the_document_does_not_know() -> None:
    assert [
        status
        for status in ("ACTIVE", "Shutoff", "BUILD", "RESIZE", "Password")
        if is_unusual(status)
    ] == []
    assert all(
        map(
            is_unusual,
            ("ERROR", "error", "UNKNOWN", "SUSPENDED", "RESCUE", "VERIFY_RESIZE", "NEW_IN_NOVA"),
        )
    )
