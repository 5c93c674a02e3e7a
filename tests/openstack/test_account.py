"""A service account that cannot do its work: `check` says so, and a worker that has it is not
ready.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.openstack.conftest import Cloud
from tests.support.workshop import Workshop, eventually


@pytest.fixture
def clouds(cloud: Cloud) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(cloud.clouds_yaml.read_text())["clouds"]
    return found


@pytest.fixture
def admin(cloud: Cloud) -> Iterator[Connection]:
    found = connection(cloud.clouds_yaml, "admin")
    yield found
    found.close()


def connection(file: Path, name: str) -> Connection:
    return Connection(config=OpenStackConfig(config_files=[str(file)]).get_one(cloud=name))


def told(shop: Workshop, entry: dict[str, Any], folder: Path) -> str:
    """What `check` finds of the account's rights, and that readiness says the same."""
    file = folder / "clouds.yaml"
    file.write_text(json.dumps({"clouds": {"ecs-worker": entry}}))
    with Workshop(shop.broker_url, shop.cloud, folder) as place:
        place.settings["OS_CLIENT_CONFIG_FILE"] = str(file)
        del place.settings["ECS_ADMIN_CLOUD"]
        done = place.command("check", "-o", "json")
        assert done.returncode == 5, done.stdout + done.stderr
        (found,) = [row for row in json.loads(done.stdout) if row["check"] == "rights"]
        assert found["result"] == "failed"
        worker = place.worker(wait=False)
        eventually(lambda: any(found["found"] in one for one in worker.problems()), 60)
        return str(found["found"])


def test_an_application_credential_cannot_act_for_the_tenants_and_is_told(
    cloud: Cloud, shop: Workshop, clouds: dict[str, Any], tmp_path: Path
) -> None:
    account = connection(cloud.clouds_yaml, "ecs-worker")
    user = account.current_user_id
    made = account.session.post(
        f"/users/{user}/application_credentials",
        endpoint_filter={"service_type": "identity", "interface": "public"},
        json={"application_credential": {"name": uuid.uuid4().hex}},
    ).json()["application_credential"]
    account.close()
    entry = clouds["ecs-worker"]
    auth = {
        "auth_url": entry["auth"]["auth_url"],
        "application_credential_id": made["id"],
        "application_credential_secret": made["secret"],
    }
    found = told(shop, {**entry, "auth_type": "v3applicationcredential", "auth": auth}, tmp_path)
    assert "application credential" in found
    assert made["secret"] not in found


def test_an_account_without_a_role_in_any_project_is_told(
    shop: Workshop, clouds: dict[str, Any], admin: Connection, tmp_path: Path
) -> None:
    entry = clouds["ecs-worker"]
    name, password = f"outsider-{uuid.uuid4().hex[:8]}", entry["auth"]["password"]
    identity = {"service_type": "identity", "interface": "public"}
    user = admin.session.post(
        "/users",
        endpoint_filter=identity,
        json={"user": {"name": name, "password": password, "domain_id": "default"}},
    ).json()["user"]
    try:
        auth = {
            "auth_url": entry["auth"]["auth_url"],
            "username": name,
            "password": password,
            "user_domain_id": "default",
        }
        assert (
            told(shop, {**entry, "auth": auth}, tmp_path)
            == "the service account has a role in no project"
        )
    finally:
        admin.session.delete(f"/users/{user['id']}", endpoint_filter=identity)
