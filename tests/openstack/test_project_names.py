"""A tenant that is named: the name may move to another project, and may be another project's id; on
both clouds.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.control_plane import ControlPlane
from sandbox.issuer import USER, Issuer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

IDENTITY = "101.001401"
#: Seconds within which a name that has moved is learnt.
LEARNT = 30
Cloud = SimulatedOpenStack | ControlPlane


class Projects:
    """Projects that the admin makes, each with one private image that tells it from the others."""

    def __init__(self, cloud: Cloud) -> None:
        self._admin = Tenant(cloud.clouds_yaml, "admin").connection
        self._account = Tenant(cloud.clouds_yaml, "ecs-worker").connection
        (user,) = self._get("/users", "users", name="ecs-worker")
        (role,) = self._get("/roles", "roles", name="member")
        self._user_id, self._role_id = user["id"], role["id"]

    def make(self, name: str) -> tuple[str, str]:
        """Make a project in which the service account has a role; its id, and its image's."""
        answer = self._admin.identity.post(
            "/projects", json={"project": {"name": name, "domain_id": "default"}}
        )
        assert answer.status_code == 201, answer.text
        project_id: str = answer.json()["project"]["id"]
        granted = self._admin.identity.put(
            f"/projects/{project_id}/users/{self._user_id}/roles/{self._role_id}"
        )
        assert granted.status_code == 204, granted.text
        glance = self._account.connect_as(project_id=project_id).image
        made = glance.post("/images", json={"name": f"of-{name}", "visibility": "private"})
        assert made.status_code == 201, made.text
        image_id: str = made.json()["id"]
        assert glance.put(f"/images/{image_id}/tags/told").status_code == 204
        return project_id, image_id

    def rename(self, project_id: str, name: str) -> None:
        """Give a project another name."""
        answer = self._admin.identity.patch(
            f"/projects/{project_id}", json={"project": {"name": name}}
        )
        assert answer.status_code == 200, answer.text

    def _get(self, path: str, what: str, **filters: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._admin.identity.get(path, params=filters).json()[what]
        return found


@pytest.fixture
def projects(cloud: Cloud) -> Projects:
    return Projects(cloud)


@pytest.fixture
def bearers(
    broker: PrivateBroker, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Workshop, Issuer]]:
    folder, issuer = tmp_path_factory.mktemp("names"), Issuer()
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, cloud, folder) as found:
        found.settings |= {
            "ECS_TRUST_PUBLISHERS": "false",
            "ECS_JWT_JWKS": str(issuer.write(folder / "keys.json")),
        }
        yield found, issuer


def images_seen(requester: Requester, issuer: Issuer, claim: str) -> Any:
    """Ask for the private images with a token whose tenant claim is this; the code, and the images'
    ids.
    """
    message_id = requester.command(
        "image.list_private",
        tenant=None,
        tag="told",
        user_id=USER,
        token=issuer.token(project=claim),
    )
    body = requester.result_of(message_id).body
    return body["code"], [one["id"] for one in body["data"]["images"]] if body[
        "code"
    ] == 200 else None


def test_a_name_that_moved_to_another_project_is_learnt_before_anything_is_done_in_it(
    projects: Projects, bearers: tuple[Workshop, Issuer]
) -> None:
    workshop, issuer = bearers
    name = f"moves-{uuid.uuid4().hex[:8]}"
    (first, first_image), (second, second_image) = (
        projects.make(name),
        projects.make(f"{name}-heir"),
    )
    workshop.worker()
    with Requester(workshop.broker_url) as requester:
        assert images_seen(requester, issuer, name) == (200, [first_image])
        projects.rename(first, f"{name}-old")
        projects.rename(second, name)
        moved = time.monotonic()
        time.sleep(LEARNT + 1 - (time.monotonic() - moved))
        assert images_seen(requester, issuer, name) == (200, [second_image])
        assert images_seen(requester, issuer, first) == (200, [first_image]), (
            "an id means the same project for good"
        )


def test_a_claim_that_is_one_projects_id_and_anothers_name_is_refused_unless_it_is_said_which(
    projects: Projects, bearers: tuple[Workshop, Issuer]
) -> None:
    workshop, issuer = bearers
    victim, victims_image = projects.make(f"victim-{uuid.uuid4().hex[:8]}")
    _, thiefs_image = projects.make(victim)
    worker = workshop.worker()
    with Requester(workshop.broker_url) as requester:
        assert images_seen(requester, issuer, victim) == (IDENTITY, None)
        eventually(lambda: "another's name" in workshop.logs())
    for written, image in (("id", victims_image), ("name", thiefs_image)):
        worker.stop()
        worker = workshop.worker(ECS_JWT_TENANT_IS=written)
        with Requester(workshop.broker_url) as requester:
            assert images_seen(requester, issuer, victim) == (200, [image])
