"""createImage and the image operations, on the simulated cloud and on the real one."""

import json
from typing import Any

import pytest

from sandbox.requester import Requester, Source
from tests.openstack.test_views import ask
from tests.support.tenant import Tenant
from tests.support.waiting import eventually

UNKNOWN = "00000000-0000-4000-8000-000000000000"
_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def make_image(
    requester: Requester, tenant: Tenant, server_id: str, name: str = "mine"
) -> tuple[str, str]:
    """Ids of the image, which can be used, and of the command."""
    body = {
        "createImage": {
            "name": name,
            "description": "填写描述信息",
            "metadata": {"meta_var": "meta_val"},
        }
    }
    message_id = requester.command("server.action", server_id=server_id, body=body)
    result = requester.result_of(message_id)
    assert (result.body["code"], result.body["message"]) == (201, "Created"), result.body
    image_id: str = result.body["data"]["image_id"]
    tenant.later("image", f"/images/{image_id}")
    assert requester.last_update_of("image", message_id).body["status"] == "active"
    return image_id, message_id


def queued_image(tenant: Tenant) -> str:
    """The id of an image whose data have not come."""
    answer = tenant.connection.image.post(
        "/images", json={"name": "queued", "visibility": "private"}
    )
    assert answer.status_code == 201, answer.text
    image_id: str = answer.json()["id"]
    tenant.later("image", f"/images/{image_id}")
    return image_id


def patch(tenant: Tenant, image_id: str, field: str, value: Any) -> None:
    operations = [{"op": "replace", "path": f"/{field}", "value": value}]
    answer = tenant.connection.image.patch(
        f"/images/{image_id}", data=json.dumps(operations), headers=_PATCH
    )
    assert answer.status_code == 200, answer.text


def test_an_image_is_made_shown_changed_and_deleted(requester: Requester, tenant: Tenant) -> None:
    server_id = tenant.make_server(disk=None)
    image_id, message_id = make_image(requester, tenant, server_id)
    told = [one.body for one in requester.updates_of(message_id)]
    assert [one["final"] for one in told] == [False] * (len(told) - 1) + [True]
    assert {one["resource"] for one in told} == {"image"}
    assert {one["action"] for one in told} == {"createImage"}
    assert (told[0]["status"], told[0]["translation"]) == ("queued", "创建中")
    assert told[-1]["translation"] == "可用"

    # The same command again: the same image.
    again = requester.command(
        "server.action",
        server_id=server_id,
        message_id=message_id,
        body={
            "createImage": {
                "name": "mine",
                "description": "填写描述信息",
                "metadata": {"meta_var": "meta_val"},
            }
        },
    )
    first = requester.result_of(again)
    repeated = requester.wait(
        lambda one: one.source is Source.REPLY and one.correlation_id == again and one is not first
    )
    assert repeated.body == first.body
    assert (
        len(
            ask(requester, "image.list", searchValue="mine", visibility="private")["data"]["images"]
        )
        == 1
    )

    shown = ask(requester, "image.show", image_id=image_id)["data"]
    shown["tags"].sort()
    glance = tenant.connection.image.get(f"/images/{image_id}").json()
    assert shown == {
        "id": image_id,
        "name": "mine",
        "tags": ["ECS", "SYSTEMDISK_10", "cirros"],
        "status": "active",
        "translation": "可用",
        "checksum": glance["checksum"],
        "owner": tenant.project_id,
        "visibility": "private",
        "size": glance["size"],
        "locations": None,
        "direct_url": None,
        "self": f"/v2/images/{image_id}",
        "file": f"/v2/images/{image_id}/file",
        "schema": "/v2/schemas/image",
        "description": "填写描述信息",
        "system": "cirros",
        "systemType": None,
        "systemDisk": "10",
        "container_format": "bare",
        "disk_format": "raw",
        "created_at": glance["created_at"].replace("Z", ".000+0000"),
        "updated_at": glance["updated_at"].replace("Z", ".000+0000"),
        "min_disk": glance["min_disk"],
        "min_ram": glance["min_ram"],
        "protected": False,
        "instance_uuid": server_id,
    }
    assert glance["meta_var"] == "meta_val"

    assert ask(
        requester,
        "image.update",
        image_id=image_id,
        body=[
            {"op": "add", "path": "/name", "value": "新名称"},
            {"op": "remove", "path": "/description"},
            {"op": "replace", "path": "/system", "value": "centos7.1"},
            {"op": "remove", "path": "/systemType"},
        ],
    ) == {"code": 200, "message": "OK", "data": ""}
    shown = ask(requester, "image.show", image_id=image_id)["data"]
    assert (shown["name"], shown["description"], shown["system"]) == ("新名称", None, "centos7.1")

    assert image_id in str(ask(requester, "image.list_private", tag="ECS")["data"]["images"])
    assert image_id not in str(ask(requester, "image.list_private", tag="other")["data"]["images"])
    found = ask(requester, "image.list", searchValue="新名", visibility="private")["data"]
    found["images"][0]["tags"].sort()
    assert (found["totalCount"], found["images"]) == (1, [shown | {"tags": sorted(shown["tags"])}])

    deleting = requester.command("image.delete", image_id=image_id)
    assert requester.result_of(deleting).body == {"code": 200, "message": "OK", "data": ""}
    last = requester.last_update_of("image", deleting)
    assert (last.body["status"], last.body["translation"], last.routing_key) == (
        "deleted",
        "已删除",
        f"image.{image_id}",
    )
    assert tenant.connection.image.get(f"/images/{image_id}").status_code == 404
    gone = ask(requester, "image.show", image_id=image_id)
    assert (gone["code"], gone["message"]) == ("101.003033", f"镜像{image_id}不存在")


def test_an_image_is_made_of_a_server_that_was_booted_from_a_volume(
    requester: Requester, tenant: Tenant
) -> None:
    server_id = tenant.make_server()
    image_id, message_id = make_image(requester, tenant, server_id, "of-a-volume")
    told = [one.body["status"] for one in requester.updates_of(message_id)]
    assert (told[0], told[-1]) == ("queued", "active")
    shown = ask(requester, "image.show", image_id=image_id)["data"]
    assert sorted(shown["tags"]) == ["ECS", "SYSTEMDISK_10", "cirros"]
    assert (shown["description"], shown["visibility"]) == ("填写描述信息", "private")
    assert (shown["system"], shown["systemDisk"], shown["translation"]) == ("cirros", "10", "可用")
    assert shown["instance_uuid"] == server_id


@pytest.mark.long_on_real
def test_the_customers_system_takes_precedence_on_the_image(
    requester: Requester, tenant: Tenant
) -> None:
    """Of a server of such an image it is known, too, and so it goes on to the image of that one."""
    first = tenant.make_server(disk=3)
    words = {"system": "CentOS 7.1/x64", "systemType": "linux", "systemDisk": "900"}
    image_id = made_of(requester, tenant, first, metadata=words)
    shown = ask(requester, "image.show", image_id=image_id)["data"]
    assert sorted(shown["tags"]) == ["CentOS 7.1-x64", "ECS", "SYSTEMDISK_3"]
    told = (shown["system"], shown["systemType"], shown["systemDisk"])
    assert told == ("CentOS 7.1/x64", "linux", "3")
    assert image_id in str(
        ask(requester, "image.list_private", tag="SYSTEMDISK_3")["data"]["images"]
    )
    second = tenant.make_server(disk=None, image=image_of_local(requester, tenant, words))
    shown = ask(requester, "image.show", image_id=made_of(requester, tenant, second))["data"]
    assert sorted(shown["tags"]) == ["CentOS 7.1-x64", "ECS", "SYSTEMDISK_10"]
    assert (shown["system"], shown["systemType"]) == ("CentOS 7.1/x64", "linux")


def image_of_local(requester: Requester, tenant: Tenant, words: dict[str, str]) -> str:
    return made_of(requester, tenant, tenant.make_server(disk=None), metadata=words)


def made_of(requester: Requester, tenant: Tenant, server_id: str, **options: Any) -> str:
    """The id of an image of the server, once it can be used and has its tags."""
    body = {"createImage": {"name": "described", "description": "", **options}}
    message_id = requester.command("server.action", server_id=server_id, body=body)
    image_id: str = requester.result_of(message_id).body["data"]["image_id"]
    tenant.later("image", f"/images/{image_id}")
    assert requester.last_update_of("image", message_id).body["status"] == "active"
    return image_id


@pytest.mark.long_on_real
def test_the_name_of_an_image_leaves_room_for_the_names_of_its_snapshots(
    requester: Requester, tenant: Tenant
) -> None:
    booted_from_a_volume, local = tenant.make_server(disk=3), tenant.make_server(disk=None)
    body = {"createImage": {"name": "x" * 243, "description": ""}}
    answer = ask(requester, "server.action", server_id=booted_from_a_volume, body=body)
    assert (answer["code"], answer["message"]) == ("101.001002", "参数name不符合规范")
    for server_id, longest in ((booted_from_a_volume, 242), (local, 255)):
        body["createImage"]["name"] = "x" * longest
        answer = ask(requester, "server.action", server_id=server_id, body=body)
        assert answer["code"] == 201, answer
        tenant.later("image", f"/images/{answer['data']['image_id']}")


def test_an_image_that_would_have_too_many_properties_is_refused_at_once(
    requester: Requester, tenant: Tenant
) -> None:
    """Glance counts those of the image before, too, and tells Nova, which knows no word for it."""
    image_id = full_image(tenant, 100)
    server_id = tenant.make_server(disk=None, image=image_id)
    more = {f"more{number}": "x" for number in range(40)}
    body = {"createImage": {"name": "too-much", "description": "", "metadata": more}}
    answer = ask(requester, "server.action", server_id=server_id, body=body)
    assert (answer["code"], answer["data"]["reason"]) == ("101.003007", "quota")
    assert tenant.images("too-much") == []


def full_image(tenant: Tenant, number: int) -> str:
    """The id of an image with so many properties."""
    image_id = tenant.make_image("full", **{f"p{one}": "x" for one in range(number)})
    tenant.later("image", f"/images/{image_id}")
    return image_id


def test_a_property_beyond_glances_quota_is_refused_at_once_and_one_that_is_there_is_changed(
    requester: Requester, tenant: Tenant
) -> None:
    """413, which is no rate limit here: nothing is tried again."""
    image_id = full_image(tenant, 127)
    patches = [
        [{"op": "add", "path": "/system", "value": "a"}],
        [{"op": "add", "path": "/description", "value": "b"}],
        [{"op": "add", "path": "/description", "value": "b"}, {"op": "remove", "path": "/system"}],
        [
            {"op": "replace", "path": "/description", "value": "c"},
            {"op": "add", "path": "/name", "value": "d"},
        ],
    ]
    answers = [ask(requester, "image.update", image_id=image_id, body=body) for body in patches]
    assert [one["code"] for one in answers] == [200, "101.003005", 200, 200]
    assert answers[1] == {
        "code": "101.003005",
        "message": "更新镜像失败",
        "data": {"reason": "quota"},
    }


def test_an_image_that_takes_no_more_tags_is_made_nevertheless(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    # Its owner is quicker than the worker that tags it.
    cloud.fault("api.glance", match="^PUT .*/tags/ECS", error="overloaded", status=503, times=3)
    body = {"createImage": {"name": "tagged-enough", "description": ""}}
    message_id = requester.command("server.action", server_id=server_id, body=body)
    image_id = requester.result_of(message_id).body["data"]["image_id"]
    tenant.later("image", f"/images/{image_id}")
    eventually(lambda: tenant.images("", image_id)[0]["status"] == "active")
    patch(tenant, image_id, "tags", [f"t{number}" for number in range(128)])
    assert requester.last_update_of("image", message_id).body["status"] == "active"
    assert len(tenant.images("tagged-enough", image_id)[0]["tags"]) == 128


def test_an_image_that_vanishes_ends_as_deleted(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    cloud.fault("virt.snapshot", match=server_id, delay=2, error="no space", times=1)
    body = {"createImage": {"name": "lost", "description": ""}}
    message_id = requester.command("server.action", server_id=server_id, body=body)
    assert requester.result_of(message_id).body["code"] == 201
    assert requester.last_update_of("image", message_id).body["status"] == "deleted"
    statuses = [one.body["status"] for one in requester.updates_of(message_id)]
    assert statuses[0] == "queued"
    assert (
        tenant.wait(server_id, lambda one: one["OS-EXT-STS:task_state"] is None)["status"]
        == "ACTIVE"
    )


def test_an_image_is_answered_though_glance_does_not_tag_it_yet(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server()
    cloud.fault("api.glance", match="^PUT .*/tags/ECS", error="overloaded", status=503, times=1)
    body = {"createImage": {"name": "tagged-later", "description": ""}}
    message_id = requester.command("server.action", server_id=server_id, body=body)
    answer = requester.result_of(message_id).body
    assert answer["code"] == 201
    requester.last_update_of("image", message_id)
    image_id = answer["data"]["image_id"]
    tenant.later("image", f"/images/{image_id}")
    eventually(
        lambda: sorted(tenant.images("", image_id)[0]["tags"]) == ["ECS", "SYSTEMDISK_10", "cirros"]
    )


def test_a_server_in_the_wrong_state_gives_no_image(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    admin = Tenant(cloud.clouds_yaml, "admin")
    admin.act(server_id, {"os-resetState": {"state": "error"}})
    admin.close()
    body = {"createImage": {"name": "x", "description": "y"}}
    answer = ask(requester, "server.action", server_id=server_id, body=body)
    assert (answer["code"], answer["message"]) == (
        "101.003011",
        "虚机不能创建自定义镜像,状态:ERROR",
    )
    assert ask(requester, "server.action", server_id=UNKNOWN, body=body)["code"] == "101.001033"
    for wrong in (
        {"name": "x"},
        {"description": "x"},
        {"name": "x", "description": "y", "metadata": {"owner": "z"}},
    ):
        assert (
            ask(requester, "server.action", server_id=server_id, body={"createImage": wrong})[
                "code"
            ]
            == "101.001002"
        )


def test_an_image_in_use_or_protected_is_not_deleted(requester: Requester, tenant: Tenant) -> None:
    template = tenant.make_server(disk=None)
    used, _ = make_image(requester, tenant, template)
    tenant.make_server(name="uses-it", disk=None, image=used)
    answer = ask(requester, "image.delete", image_id=used)
    assert (answer["code"], answer["message"]) == (
        "101.003015",
        '当前镜像无法删除，已关联云服务器"uses-it"',
    )
    in_volume, _ = make_image(requester, tenant, template)
    tenant.make_server(name="uses-it-too", disk=10, image=in_volume)
    assert "uses-it-too" in ask(requester, "image.delete", image_id=in_volume)["message"]
    protected, _ = make_image(requester, tenant, template)
    patch(tenant, protected, "protected", True)
    free, _ = make_image(requester, tenant, template)

    refused = ask(requester, "image.delete", image_id=protected)
    assert refused == {
        "code": "101.003006",
        "message": "删除镜像失败",
        "data": {"reason": "protected"},
    }
    public = ask(requester, "image.delete", image_id=tenant.image)
    assert public == {
        "code": "101.003006",
        "message": "删除镜像失败",
        "data": {"reason": "not_owned"},
    }
    assert ask(requester, "image.delete", image_id=free, tenant="tenant-b")["code"] == "101.003033"

    # More images than are asked for singly.
    ids = [free, protected, UNKNOWN, used, in_volume]
    batch = ask(requester, "image.batch_delete", body={"images": [{"id": one} for one in ids]})
    assert (batch["code"], batch["data"]["status"]) == (200, "删除成功1台,删除失败4台")
    assert [(one["id"], one["code"]) for one in batch["data"]["images"]] == [
        (free, 200),
        (protected, "101.003006"),
        (UNKNOWN, "101.003033"),
        (used, "101.003015"),
        (in_volume, "101.003015"),
    ]
    assert [one["message"].partition('"')[2] for one in batch["data"]["images"][3:]] == [
        'uses-it"',
        'uses-it-too"',
    ]
    assert tenant.connection.image.get(f"/images/{free}").status_code == 404
    twice = ask(
        requester, "image.batch_delete", body={"images": [{"id": free}, {"id": free.upper()}]}
    )
    assert twice["message"] == "参数images不符合规范"
    patch(tenant, protected, "protected", False)


def test_an_answer_stays_though_glance_no_longer_responds(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    image_id = queued_image(tenant)
    cloud.fault(
        "api.glance", match=f"^GET .*/images/{image_id}", error="not now", status=403, times=1
    )
    body = {"images": [{"id": image_id}]}
    message_id = requester.command("image.batch_delete", body=body)
    assert requester.last_update_of("image", message_id).body["status"] == "deleted"
    first = requester.result_of(message_id)
    requester.command(
        "image.batch_delete", body=body, message_id=message_id, correlation_id="again"
    )
    assert requester.result_of("again").raw == first.raw
    assert first.body["data"]["status"] == "删除成功1台,删除失败0台"


def test_an_image_that_may_not_be_changed_is_refused(requester: Requester, tenant: Tenant) -> None:
    queued = queued_image(tenant)
    renaming = [{"op": "replace", "path": "/name", "value": "x"}]
    assert ask(requester, "image.update", image_id=queued, body=renaming)["code"] == "101.003016"
    assert (
        ask(requester, "image.update", image_id=tenant.image, body=renaming)["code"] == "101.003017"
    )
    assert ask(requester, "image.update", image_id=UNKNOWN, body=renaming)["code"] == "101.003033"
    for path in ("/owner", "/visibility", "/locations", "/img_signature", "name", "/tags"):
        body = [{"op": "add", "path": path, "value": "x"}]
        assert (
            ask(requester, "image.update", image_id=queued, body=body)["message"]
            == "参数path不符合规范"
        )
    for operation in ({"op": "remove", "path": "/name"}, {"op": "move", "path": "/name"}):
        assert (
            ask(requester, "image.update", image_id=queued, body=[operation])["message"]
            == "参数op不符合规范"
        )
    assert ask(requester, "image.show", image_id=queued)["data"]["translation"] == "创建中"


def test_images_are_searched_sorted_and_paged(requester: Requester, tenant: Tenant) -> None:
    template = tenant.make_server(disk=None)
    made = {name: make_image(requester, tenant, template, name)[0] for name in ("list-b", "LIST-a")}
    asked = {"searchValue": "list-", "sortField": "name", "sortOrder": "ascend"}
    page = ask(requester, "image.list", **asked)["data"]
    assert [one["name"] for one in page["images"]] == ["LIST-a", "list-b"]
    second = ask(requester, "image.list", page=2, pageSize=1, **asked)["data"]
    assert (second["totalCount"], [one["name"] for one in second["images"]]) == (2, ["list-b"])
    assert ask(requester, "image.list", page=3, pageSize=1, **asked)["data"] == {
        "totalCount": 2,
        "images": [],
    }
    by_id = ask(requester, "image.list", searchValue=made["list-b"])["data"]["images"]
    assert [one["name"] for one in by_id] == ["list-b"]
    everything = ask(requester, "image.list", pageSize=100)["data"]["images"]
    assert {"cirros-like", "LIST-a"} <= {one["name"] for one in everything}
    assert "list-b" not in str(ask(requester, "image.list", tenant="tenant-b", pageSize=100))
    assert ask(requester, "image.list", visibility="everyone")["code"] == "101.001002"


def test_a_refusal_of_glance_or_nova_is_in_the_answer(
    requester: Requester, tenant: Tenant, cloud: Any
) -> None:
    server_id = tenant.make_server(disk=None)
    image_id, _ = make_image(requester, tenant, server_id)
    cloud.fault("api.glance", match=f"^(PATCH|DELETE) .*{image_id}", error="not today", status=403)
    changed = ask(
        requester,
        "image.update",
        image_id=image_id,
        body=[{"op": "add", "path": "/name", "value": "x"}],
    )
    assert changed == {
        "code": "101.003005",
        "message": "更新镜像失败",
        "data": {"reason": "forbidden"},
    }
    deleted = ask(requester, "image.delete", image_id=image_id)
    assert deleted == {
        "code": "101.003006",
        "message": "删除镜像失败",
        "data": {"reason": "forbidden"},
    }
    cloud.clear_faults()
    cloud.fault("api.nova", match=f"^POST .*{server_id}/action", error="not today", status=403)
    body = {"createImage": {"name": "x", "description": "y"}}
    made = ask(requester, "server.action", server_id=server_id, body=body)
    assert made == {
        "code": "101.003007",
        "message": "创建自定义镜像失败",
        "data": {"reason": "forbidden"},
    }
