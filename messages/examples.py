"""Examples of messages by the names of their JSON schemas; tests hold them against both."""

from typing import Any

_SERVER_ID = "616fb98f-46ca-475e-917e-2563e5a8cd19"
_OTHER_ID = "f750c817-2d3d-4f3c-9e2b-3a5b8f5c8a11"
_IMAGE_ID = "253a26bb-f2f8-4443-8152-5c505a4ad7cd"
_TIME = "2026-11-23 10:00:00"
_ABOUT = {"tenant_id": "tenant-a", "user_id": "f679eb23-5d5f-4c5e-8f0e-2f1d6f1b7c11"}


def _command(operation: str, **fields: Any) -> dict[str, Any]:
    return {"operation": operation, **_ABOUT, **fields}


def _answer(data: Any, code: int = 200) -> dict[str, Any]:
    return {"code": code, "message": "OK" if code == 200 else "Created", "data": data}


def _order(order_type: str, product: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known = {
        "region": "cn-north-3",
        "productLineCode": "ECS",
        "productTypeCode": "ECS_std",
        "instanceCount": "1",
    }
    return {
        "userId": _ABOUT["user_id"],
        "consoleOrderFlowId": "9ee4612f-6a0c-4c84-9d2c-0e8d5f0f2b1d",
        "orderId": "178549870045495296",
        "orderStatus": "paySuccess",
        "orderType": order_type,
        "orderRoute": "ECS",
        "billType": "hourlySettlement",
        "statusTime": _TIME,
        "setCount": "1",
        "productList": [{**known, **product}],
        **fields,
    }


_NAMED = {"instanceId": _OTHER_ID}
_ITEMS = [
    {"code": "std_2C4G", "name": "flavor", "value": "std.2c4g"},
    {"code": "CPU", "value": "2"},
    {"code": "memory", "value": "4"},
    {"code": "sys_EBS_SATA", "value": "50"},
    {"code": "data_EBS_SSD", "value": "0"},
    {"code": "osType", "value": "Linux", "type": "impactFactor"},
]
_TERM = {"duration": "1", "durationUnit": "M"}
_SERVER = {
    "regionId": "cn-north-3",
    "regionID": "cn-north-3",
    "availability_zone": "nova",
    "name": "newserver",
    "id": _SERVER_ID,
    "status": "active",
    "translation": "运行中",
    "task_state": None,
    "image": {
        "id": _IMAGE_ID,
        "name": "centos70X64",
        "system": "Centos",
        "systemType": "Linux",
        "tags": ["ECS"],
    },
    "root_volume": {"volumetype": "SATA", "size": 50},
    "data_volumes": [
        {"volumetype": "SATA", "volumeid": _OTHER_ID, "volumename": "data-1", "size": 100}
    ],
    "flavor": {
        "disk": 50,
        "ephemeral": 0,
        "extra_specs": {"hw:cpu_policy": "dedicated"},
        "original_name": "s1.xlarge.2",
        "ram": 4096,
        "swap": 0,
        "vcpus": 2,
    },
    "security_groups": [{"name": "default"}],
    "vpcid": "0dae26c9-9a70-4392-93f3-87d53115d171",
    "vpcname": "myvpc",
    "nics": [
        {
            "subnet_id": "157ee789-03ea-45b1-a698-76c92660dd83",
            "subnet_name": "subnet-1",
            "subnet_cidr": "10.20.30.0/24",
            "network_id": "5d0180c1-ddaa-4582-9111-6332e0b091e1",
            "mac_address": "fa:16:3e:dc:d1:aa",
            "fixed_ip": "10.20.30.137",
            "portid": "9168b536-cd40-4630-b43f-b259807c6e87",
        }
    ],
    "eip": {
        "eipid": "1189efbf-d48b-46ad-a823-94b942e2a000",
        "iptype": "5_bgp",
        "bandwidth": 10,
        "chargemode": "Bandwidth",
        "ip_addr": "100.100.100.100",
    },
    "key_name": "sshkey-123",
    "feeData": {
        "chargetype": "prePaid",
        "purchasetime": _TIME,
        "startFeeTime": _TIME,
        "nextFeeTime": "2026-12-23 10:00:00",
    },
    "created": "2026-11-23T02:00:00Z",
    "hostId": "12efd5567",
    "host": None,
}
_DETAILS = {**_SERVER, "keyCloakUserId": _ABOUT["user_id"], "keyCloakUserName": "alice"}
_IMAGE = {
    "id": _IMAGE_ID,
    "name": "web-image",
    "tags": ["ECS", "SYSTEMDISK_50"],
    "status": "active",
    "translation": "可用",
    "checksum": "e9ad8c8558ab399b02b0cdd69c9bbdb6",
    "owner": "35ee734f83814f039084c9b55228e671",
    "visibility": "private",
    "size": 1073741824,
    "self": f"/v2/images/{_IMAGE_ID}",
    "file": f"/v2/images/{_IMAGE_ID}/file",
    "schema": "/v2/schemas/image",
    "description": "before the upgrade",
    "systemDisk": "50",
    "system": "centos7.1",
    "systemType": "linux",
    "container_format": "bare",
    "disk_format": "raw",
    "min_disk": 1,
    "min_ram": 0,
    "protected": False,
    "instance_uuid": _SERVER_ID,
    "created_at": "2026-11-23T02:00:00.000+0000",
    "updated_at": "2026-11-23T02:01:00.000+0000",
    "locations": None,
    "direct_url": None,
}
_OK: dict[str, Any] = {"code": 200, "message": "OK", "reason": None}
_NOT_FOUND = {
    "code": "101.001033",
    "message": f"云服务器{_OTHER_ID}不存在",
    "reason": "not_found",
}
_BEFORE = {
    "status": "ACTIVE",
    "flavor": "std.1c2g",
    "disks": [{"id": _IMAGE_ID, "size": 40, "type": "SATA"}],
    "feeData": {"charge_type": "hourlySettlement", "order_id": "178549870045495200"},
}
_OUTCOME = {
    "instanceStatus": "ACTIVE",
    "statusTime": _TIME,
    "before": _BEFORE,
    "after": {**_BEFORE, "flavor": "std.2c4g"},
    "requestIds": ["req-6a2f3f0e-4a53-4e6c-9a55-1f4c0a9b4d7e"],
}
_SOFT_DOWN: dict[str, Any] = {
    "region": "cn-north-3",
    "flowId": "flow-1",
    "instanceList": [
        {
            "subFlowId": "sub-1",
            "operateType": "stopServer",
            "productLineCode": "ECS",
            "productTypeCode": "ECS_std",
            "instanceId": _SERVER_ID,
        }
    ],
}
_CHANGED = _order("changeConfigure", {**_NAMED, "itemList": _ITEMS})

EXAMPLES: dict[str, list[Any]] = {
    "RequestHeaders": [{"x-ecs-deadline": 1795392030}],
    "ServerAction": [
        _command("server.action", server_id=_SERVER_ID, body={"reboot": {"type": "SOFT"}}),
        _command("server.action", server_id=_SERVER_ID, body={"os-start": {}}),
        _command("server.action", server_id=_SERVER_ID, body={"os-stop": {"type": "HARD"}}),
        _command(
            "server.action", server_id=_SERVER_ID, body={"os-getVNCConsole": {"type": "novnc"}}
        ),
        _command(
            "server.action",
            server_id=_SERVER_ID,
            body={
                "createImage": {
                    "name": "web-image",
                    "description": "before the upgrade",
                    "metadata": {"team": "web"},
                }
            },
        ),
    ],
    "ServerBatchAction": [
        _command(
            "server.batch_action",
            body={"os-start": {"servers": [{"id": _SERVER_ID}, {"id": _OTHER_ID}]}},
        ),
        _command(
            "server.batch_action",
            body={"os-stop": {"servers": [{"id": _SERVER_ID}], "type": "SOFT"}},
        ),
    ],
    "ServerList": [
        _command("server.list", pageNo=1, pageSize="10", searchField="ip", searchValue="10.20")
    ],
    "ServerShow": [_command("server.show", server_id=_SERVER_ID)],
    "ServerTagsList": [_command("server.tags.list", server_id=_SERVER_ID)],
    "ServerTagsUpdate": [_command("server.tags.update", server_id=_SERVER_ID, tags="web,prod")],
    "ImageList": [_command("image.list", page=1, pageSize=20, visibility="private")],
    "ImageListPrivate": [_command("image.list_private", tag="ECS")],
    "ImageShow": [_command("image.show", image_id=_IMAGE_ID)],
    "ImageDelete": [_command("image.delete", image_id=_IMAGE_ID)],
    "ImageBatchDelete": [_command("image.batch_delete", body={"images": [{"id": _IMAGE_ID}]})],
    "ImageUpdate": [
        _command(
            "image.update",
            image_id=_IMAGE_ID,
            body=[{"op": "replace", "path": "/name", "value": "web"}],
        )
    ],
    "OrderPlan": [_command("order.plan", order=_CHANGED)],
    "OrderChangeConfigure": [_CHANGED],
    "OrderNew": [
        _order(
            "new",
            {
                "availableZone": "nova",
                "itemList": [*_ITEMS, {"code": "image_centos", "value": _IMAGE_ID}],
            },
            consoleCustomization={
                "instanceName": "web",
                "networkId": "5d0180c1-ddaa-4582-9111-6332e0b091e1",
                "securityGroups": ["default"],
                "keyName": "sshkey-123",
                "tags": "web,prod",
            },
            **_TERM,
        )
    ],
    "OrderRenew": [_order("renew", _NAMED, **_TERM)],
    "OrderUnsubscribe": [_order("unsubscribe", _NAMED)],
    "OrderSoftDown": [_SOFT_DOWN],
    "ResultHeaders": [{"x-ecs-http-status": 200}],
    "DeadLetterHeaders": [
        {
            "x-ecs-error-code": "101.001002",
            "x-ecs-error": "server_id is wrong",
            "x-ecs-origin-queue": "ecs.servers",
            "x-ecs-attempts": 0,
            "x-ecs-failed-at": "2026-11-23T02:00:00Z",
        }
    ],
    "ServerActionAnswer": [
        _answer(None),
        _answer({"console": {"type": "novnc", "url": "https://console.example/vnc?token=…"}}),
        _answer({"image_id": _IMAGE_ID}, 201),
    ],
    "ServerBatchActionAnswer": [_answer({"servers": [{"id": _SERVER_ID, **_OK}]})],
    "ServerListAnswer": [_answer({"totalCount": 1, "servers": [_SERVER]})],
    "ServerShowAnswer": [_answer({"server": _DETAILS})],
    "ServerTagsListAnswer": [_answer({"tags": ["web", "prod"]})],
    "ServerTagsUpdateAnswer": [_answer(None)],
    "ImageListAnswer": [_answer({"totalCount": 1, "images": [_IMAGE]})],
    "ImageListPrivateAnswer": [_answer({"totalCount": 1, "images": [_IMAGE]})],
    "ImageShowAnswer": [_answer(_IMAGE)],
    "ImageDeleteAnswer": [_answer("")],
    "ImageUpdateAnswer": [_answer("")],
    "ImageBatchDeleteAnswer": [
        _answer({"status": "删除成功1台,删除失败0台", "images": [{"id": _IMAGE_ID, **_OK}]})
    ],
    "OrderPlanAnswer": [
        _answer(
            {
                "orderId": "178549870045495296",
                "orderType": "changeConfigure",
                "verdict": "carried_out",
                **_OK,
                "detail": None,
                "checks": [
                    {"name": "form", "instanceId": None, "passed": True, **_OK, "detail": None}
                ],
                "steps": [
                    {
                        "number": 1,
                        "name": "resize",
                        "instanceId": _OTHER_ID,
                        "target": None,
                        "before": "std.1c2g",
                        "after": "std.2c4g",
                        "canBeUndone": True,
                    }
                ],
                "cannotBeUndone": [],
            }
        )
    ],
    "Failure": [
        {"code": "101.001002", "message": "参数server_id不符合规范", "data": None},
        {"code": "101.001040", "message": "操作失败", "data": {"reason": "timeout"}},
        {
            "code": "101.001033",
            "message": _NOT_FOUND["message"],
            "data": {"servers": [{"id": _OTHER_ID, **_NOT_FOUND}]},
        },
    ],
    "OrderResult": [
        _answer(
            {
                "userId": _ABOUT["user_id"],
                "consoleOrderFlowId": _CHANGED["consoleOrderFlowId"],
                "orderId": _CHANGED["orderId"],
                "productSetList": [
                    {
                        "productSetStatus": "success",
                        "resourceChanged": True,
                        "billType": "hourlySettlement",
                        "orderType": "changeConfigure",
                        "duration": None,
                        "durationUnit": None,
                        "productList": [
                            {
                                **_CHANGED["productList"][0],
                                **_OUTCOME,
                                "kept": {"ports": [_OTHER_ID]},
                            }
                        ],
                    }
                ],
            }
        ),
        _answer(
            {
                **_SOFT_DOWN,
                "instanceList": [
                    {**_SOFT_DOWN["instanceList"][0], "result": "success", **_OK, **_OUTCOME}
                ],
            }
        ),
    ],
    "StatusUpdate": [
        {
            "resource": "server",
            "id": _SERVER_ID,
            "operation": "server.action",
            "action": "os-start",
            "status": "powering-on",
            "translation": "开机中",
            "final": False,
            "message_id": "b0ab7b2e-8a0e-4a49-9a37-6a45f0f4d8ae",
            "tenant_id": "35ee734f83814f039084c9b55228e671",
            "user_id": _ABOUT["user_id"],
            "time": "2026-11-23T02:00:00.123Z",
        }
    ],
}
