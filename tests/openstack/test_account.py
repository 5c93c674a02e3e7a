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

from sandbox.requester import Requester
from tests.openstack.conftest import Cloud
from tests.support.traffic import Traffic
from tests.support.waiting import eventually
from tests.support.workshop import Workshop


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
    """Return what `check` finds of the account's rights, and that readiness says the same."""
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


class OwnAccount:
    """A service account of one test's: a user with the role `member` in tenant-a."""

    def __init__(
        self, admin: Connection, project_id: str, entry: dict[str, Any], file: Path
    ) -> None:
        self._admin, self._entry, self._file = admin, entry, file
        self.name = f"account-{uuid.uuid4().hex[:8]}"
        roles = admin.identity.get("/roles", params={"name": "member"}).json()["roles"]
        made = {"name": self.name, "password": "first-1", "domain_id": "default"}
        answer = admin.identity.post("/users", json={"user": made})
        assert answer.status_code == 201, answer.text
        self._id = answer.json()["user"]["id"]
        path = f"/projects/{project_id}/users/{self._id}/roles/{roles[0]['id']}"
        assert admin.identity.put(path).status_code == 204
        self.write("first-1")

    def write(self, password: str) -> None:
        """Put the password into clouds.yaml."""
        auth = {**self._entry["auth"], "username": self.name, "password": password}
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"clouds": {"ecs-worker": {**self._entry, "auth": auth}}}))
        new.replace(self._file)

    def change(self, password: str) -> None:
        """Have Keystone know another password; it revokes the tokens of the old one."""
        answer = self._admin.identity.patch(
            f"/users/{self._id}", json={"user": {"password": password}}
        )
        assert answer.status_code == 200, answer.text

    def delete(self) -> None:
        """Delete the user."""
        self._admin.identity.delete(f"/users/{self._id}")


@pytest.fixture
def own_account(
    cloud: Cloud, clouds: dict[str, Any], admin: Connection, tmp_path: Path
) -> Iterator[OwnAccount]:
    user = connection(cloud.clouds_yaml, "tenant-a")
    project_id = user.current_project_id
    user.close()
    found = OwnAccount(admin, project_id, clouds["ecs-worker"], tmp_path / "clouds.yaml")
    yield found
    found.delete()


@pytest.mark.slow
def test_the_accounts_password_is_changed_without_a_restart(
    cloud: Cloud, declared: str, own_account: OwnAccount, tmp_path: Path
) -> None:
    with Workshop(declared, cloud, tmp_path) as place:
        tenant = place.tenant()
        servers = tenant.make_servers(2)
        renewed = [tenant.make_server(disk=None) for _ in range(3)]
        place.settings["OS_CLIENT_CONFIG_FILE"] = str(tmp_path / "clouds.yaml")
        del place.settings["ECS_ADMIN_CLOUD"]
        worker = place.worker()
        with Requester(declared) as requester:
            traffic = Traffic(requester, servers, renewed, pace=0.5)

            def ask_and_hear() -> None:
                """Some more requests, and the answer of each."""
                traffic.renew()
                for _ in range(6):
                    traffic.ask()
                everything = [*traffic.reads, *traffic.reboots, *traffic.tags, *traffic.orders]
                requester.wait(lambda _: all(map(traffic.answers, everything)), 120)
                codes = {a.body["code"] for one in everything for a in traffic.answers(one)}
                assert codes == {200}

            ask_and_hear()
            # As the page has it: the file first, then Keystone. No request notices.
            own_account.write("second-2")
            own_account.change("second-2")
            ask_and_hear()
            assert "account.unusable" not in place.logs()
            # The other way round orders wait until the worker can log in. The real services may
            # remember tokens that Keystone has revoked: then it is noticed at the next log-in.
            own_account.change("third-3")
            traffic.until(lambda: bool(worker.problems()) or "Unauthorized" in place.logs(), 150)
            traffic.renew()
            requester.listen(5)
            own_account.write("third-3")
            (last,) = traffic.orders[-1:]
            assert requester.order_result_of(last, 150).body["code"] == 200
            traffic.until(lambda: not worker.problems(), 60)
            again = [requester.command("server.list") for _ in range(3)]
            for one in again:
                assert requester.result_of(one, 60).body["code"] == 200
            assert [requester.depth(one) for one in ("ecs.dead", "ecs.undelivered")] == [0, 0]
        assert not [one for one in ("first-1", "second-2", "third-3") if one in place.logs()]
