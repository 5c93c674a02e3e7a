"""A service account that Nova, Cinder and Glance show everything to: the project of what is touched
is compared.
"""

import json
from typing import Any

import pytest

from sandbox.documents import change_configure
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.openstack.test_tenants import (
    ACTIONS,
    IMAGE_UNKNOWN,
    NOT_OWNED,
    PARAMETER,
    UNKNOWN,
    Victim,
    changes,
    make_victim,
)
from tests.support.workshop import Workshop

RENAME = [{"op": "replace", "path": "/name", "value": "mine"}]
#: What is asked of the victim's things, and how it is refused.
COMMANDS: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("server.action", {"server_id": "SERVER", "body": body}, code)
        for body, code in ACTIONS.values()
    ),
    ("server.batch_action", {"body": {"os-stop": {"servers": [{"id": "SERVER"}]}}}, NOT_OWNED),
    (
        "server.batch_action",
        {"body": {"reboot": {"type": "HARD", "servers": [{"id": "SERVER"}]}}},
        UNKNOWN,
    ),
    ("server.show", {"server_id": "SERVER"}, UNKNOWN),
    ("server.tags.list", {"server_id": "SERVER"}, UNKNOWN),
    ("server.tags.update", {"server_id": "SERVER", "tags": "mine"}, UNKNOWN),
    ("image.show", {"image_id": "IMAGE"}, IMAGE_UNKNOWN),
    ("image.delete", {"image_id": "IMAGE"}, IMAGE_UNKNOWN),
    ("image.update", {"image_id": "IMAGE", "body": RENAME}, IMAGE_UNKNOWN),
]


@pytest.fixture
def almighty(workshop: Workshop) -> tuple[Workshop, Victim]:
    workshop.settings["OS_CLOUD"] = "almighty"
    workshop.worker()
    return workshop, make_victim(workshop.tenant("tenant-b"))


def test_what_is_anothers_does_not_exist_though_the_cloud_would_show_it(
    almighty: tuple[Workshop, Victim], simulated: SimulatedOpenStack
) -> None:
    workshop, victim = almighty
    own = workshop.tenant().make_server(disk=10, data=(("SSD", 1),))
    before, called = victim.looks(), changes(simulated)
    with Requester(workshop.broker_url) as requester:
        for operation, fields, code in COMMANDS:
            text = (
                json.dumps(fields)
                .replace("SERVER", victim.server_id)
                .replace("IMAGE", victim.image_id)
            )
            message_id = requester.command(operation, **json.loads(text))
            assert requester.result_of(message_id).body["code"] == code, (operation, fields)
        for operation in ("server.list", "image.list"):
            shown = requester.result_of(requester.command(operation, pageSize=100)).raw.decode()
            assert victim.server_id not in shown
            assert victim.image_id not in shown
        order = json.loads(change_configure(victim.server_id, victim.tenant.image)) | {
            "tenant_id": "tenant-a"
        }
        assert requester.order_result_of(requester.order(json.dumps(order))).body["code"] == UNKNOWN
        item = {"code": "data_EBS_SSD", "value": "2", "name": "", "instanceId": victim.volume_id}
        order = json.loads(change_configure(own, victim.tenant.image)) | {"tenant_id": "tenant-a"}
        order["productList"][0]["itemList"] = [item]
        assert (
            requester.order_result_of(requester.order(json.dumps(order))).body["code"] == PARAMETER
        )
    assert victim.looks() == before
    assert changes(simulated) == called


def test_the_account_does_see_it(almighty: tuple[Workshop, Victim]) -> None:
    """Or the test above would show nothing."""
    import openstack  # noqa: PLC0415
    from openstack.config import OpenStackConfig  # noqa: PLC0415

    workshop, victim = almighty
    region = OpenStackConfig(
        config_files=[str(workshop.cloud.clouds_yaml)], load_envvars=False
    ).get_one("almighty")
    with openstack.connection.Connection(config=region) as account:
        assert account.compute.get(f"/servers/{victim.server_id}").status_code == 200
        assert account.image.get(f"/images/{victim.image_id}").status_code == 200
