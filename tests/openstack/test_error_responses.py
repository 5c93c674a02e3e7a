"""The error bodies by which quotas, policies and conflicts are told apart, provoked on both clouds.

Each must be the one of `tests/fixtures/openstack_errors`, by which the classification is tested;
ids and numbers apart.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from handlers.openstack.errors import ErrorResponse
from tests.support.new_orders import quota, used
from tests.support.tenant import COMPUTE, VOLUME, Tenant

FIXTURES = Path(__file__).parents[1] / "fixtures" / "openstack_errors"
Call = tuple[str, str, str, Any]
_VOLUMES = {"quota_set": {"volumes": 1}}
_CORES = {"quota_set": {"cores": 1}}


class Scene:
    """A tenant with a server and a volume, and the admin who sets its quotas."""

    def __init__(self, clouds_yaml: Path) -> None:
        self.tenant, self.admin = Tenant(clouds_yaml, "tenant-a"), Tenant(clouds_yaml, "admin")
        self.server = self.tenant.make_server(disk=2, paid=False)
        (self.volume,) = self.tenant.volumes(self.server)
        self.network = next(
            one["id"] for one in self._listed("networks") if one["name"].startswith("tenant-a")
        )
        self.image = self.tenant.make_image("error-responses")
        self.tenant.later("image", f"/images/{self.image}")

    def _listed(self, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tenant.connection.network.get(f"/{what}").json()[what]
        return found

    def most(self, service: str, **room: int) -> AbstractContextManager[None]:
        """A quota that leaves so much room."""
        now = {name: used(self.tenant, service, name) + more for name, more in room.items()}
        return quota(self.tenant, self.admin, service, **now)

    def send(self, service: str, method: str, path: str, body: Any) -> Any:
        """The tenant's own call."""
        version = {"compute": COMPUTE, "block_storage": VOLUME}.get(service)
        kind = (
            {"Content-Type": "application/openstack-images-v2.1-json-patch"}
            if method == "PATCH"
            else {}
        )
        proxy = getattr(self.tenant.connection, service)
        return proxy.request(
            path, method, json=body, headers=kind, microversion=version, raise_exc=False
        )

    def close(self) -> None:
        """Take away what there is of it."""
        self.tenant.close()
        self.admin.close()


@pytest.fixture(scope="module")
def scene(cloud: Any) -> Iterator[Scene]:
    found = Scene(cloud.clouds_yaml)
    yield found
    found.close()


def new_volume(size: int) -> Call:
    return (
        "block_storage",
        "POST",
        "/volumes",
        {"volume": {"name": "x", "size": size, "volume_type": "SATA"}},
    )


def grown(scene: Scene, size: int) -> Call:
    return (
        "block_storage",
        "POST",
        f"/volumes/{scene.volume['id']}/action",
        {"os-extend": {"new_size": size}},
    )


def new_server(scene: Scene, **fields: Any) -> Call:
    body = {
        "name": "x",
        "flavorRef": scene.tenant.flavors["S1.small.1"],
        "imageRef": scene.tenant.image,
        "networks": "none",
        **fields,
    }
    return "compute", "POST", "/servers", {"server": body}


def act(scene: Scene, body: Any) -> Call:
    return "compute", "POST", f"/servers/{scene.server}/action", body


@contextmanager
def volume_in(scene: Scene, status: str) -> Iterator[None]:
    path = f"/volumes/{scene.volume['id']}/action"
    for now in (status, "in-use"):
        body = {"os-reset_status": {"status": now}}
        answer = scene.admin.connection.block_storage.post(path, json=body, microversion=VOLUME)
        assert answer.status_code == 202, answer.text
        if now == status:
            yield


@contextmanager
def locked(scene: Scene) -> Iterator[None]:
    scene.tenant.act(scene.server, {"lock": None})
    yield
    scene.tenant.act(scene.server, {"unlock": None})


QUOTA: dict[
    str, tuple[Callable[[Scene], AbstractContextManager[None]], Callable[[Scene], Call]]
] = {
    "cinder-create-per-volume": (
        lambda scene: quota(scene.tenant, scene.admin, "block_storage", per_volume_gigabytes=3),
        lambda scene: new_volume(4),
    ),
    "cinder-extend-per-volume": (
        lambda scene: quota(scene.tenant, scene.admin, "block_storage", per_volume_gigabytes=3),
        lambda scene: grown(scene, 4),
    ),
    "cinder-create-gigabytes": (
        lambda scene: scene.most("block_storage", gigabytes=1),
        lambda scene: new_volume(4),
    ),
    "cinder-create-gigabytes-of-type": (
        lambda scene: scene.most("block_storage", gigabytes_SATA=1),
        lambda scene: new_volume(4),
    ),
    "cinder-create-volumes": (
        lambda scene: scene.most("block_storage", volumes=0),
        lambda scene: new_volume(1),
    ),
    "cinder-create-volumes-of-type": (
        lambda scene: scene.most("block_storage", volumes_SATA=0),
        lambda scene: new_volume(1),
    ),
    "cinder-extend-gigabytes": (
        lambda scene: scene.most("block_storage", gigabytes=1),
        lambda scene: grown(scene, 4),
    ),
    "cinder-extend-gigabytes-of-type": (
        lambda scene: scene.most("block_storage", gigabytes_SATA=1),
        lambda scene: grown(scene, 4),
    ),
    "nova-create-cores": (lambda scene: scene.most("compute", cores=0), new_server),
    "nova-create-instances": (lambda scene: scene.most("compute", instances=0), new_server),
    "nova-create-ram": (lambda scene: scene.most("compute", ram=1), new_server),
    "nova-create-metadata": (
        lambda scene: quota(scene.tenant, scene.admin, "compute", metadata_items=1),
        lambda scene: new_server(scene, metadata={"a": "1", "b": "2"}),
    ),
    "nova-create-ports": (
        lambda scene: scene.most("network", port=0),
        lambda scene: new_server(scene, networks=[{"uuid": scene.network}]),
    ),
    "nova-resize-cores": (
        lambda scene: scene.most("compute", cores=0),
        lambda scene: act(scene, {"resize": {"flavorRef": scene.tenant.flavors["S1.medium.2"]}}),
    ),
    "nova-set-metadata": (
        lambda scene: quota(scene.tenant, scene.admin, "compute", metadata_items=1),
        lambda scene: (
            "compute",
            "POST",
            f"/servers/{scene.server}/metadata",
            {"metadata": {"a": "1", "b": "2"}},
        ),
    ),
    "neutron-create-port": (
        lambda scene: scene.most("network", port=0),
        lambda scene: ("network", "POST", "/ports", {"port": {"network_id": scene.network}}),
    ),
    "glance-image-properties": (
        lambda scene: nullcontext(),
        lambda scene: (
            "image",
            "PATCH",
            f"/images/{scene.image}",
            [{"op": "add", "path": f"/p{number}", "value": "x"} for number in range(129)],
        ),
    ),
}
OTHER: dict[
    str, tuple[str, Callable[[Scene], AbstractContextManager[None]], Callable[[Scene], Call]]
] = {
    "cinder-policy-of-quota-sets": (
        "forbidden",
        lambda scene: nullcontext(),
        lambda scene: (
            "block_storage",
            "PUT",
            f"/os-quota-sets/{scene.tenant.project_id}",
            _VOLUMES,
        ),
    ),
    "cinder-extend-backing-up": (
        "refused_by_cloud",
        lambda scene: volume_in(scene, "backing-up"),
        lambda scene: grown(scene, 4),
    ),
    "nova-policy-of-quota-sets": (
        "forbidden",
        lambda scene: nullcontext(),
        lambda scene: ("compute", "PUT", f"/os-quota-sets/{scene.tenant.project_id}", _CORES),
    ),
    "nova-locked": ("conflict", locked, lambda scene: act(scene, {"os-stop": None})),
    "nova-wrong-state": (
        "conflict",
        lambda scene: nullcontext(),
        lambda scene: act(scene, {"os-start": None}),
    ),
    "neutron-policy-of-quotas": (
        "forbidden",
        lambda scene: nullcontext(),
        lambda scene: (
            "network",
            "PUT",
            f"/quotas/{scene.tenant.project_id}",
            {"quota": {"port": 1}},
        ),
    ),
    "neutron-network-in-use": (
        "conflict",
        lambda scene: nullcontext(),
        lambda scene: ("network", "DELETE", f"/networks/{scene.network}", None),
    ),
    "glance-delete-of-anothers-image": (
        "forbidden",
        lambda scene: nullcontext(),
        lambda scene: ("image", "DELETE", f"/images/{scene.tenant.image}", None),
    ),
}


def provoked(scene: Scene, context: Any, call: Any) -> dict[str, Any]:
    """The answer as a fixture has it."""
    with context(scene):
        wanted = call(scene)
        answer = scene.send(*wanted)
    told = {
        name: answer.headers[name]
        for name in ("content-type", "retry-after")
        if name in answer.headers
    }
    return {
        "service": wanted[0],
        "status": answer.status_code,
        "headers": told,
        "body": answer.text,
    }


def alike(text: str) -> str:
    """Without ids, how many, and numbers, and the order in which JSON has its fields."""
    text = re.sub(
        r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}|\d+", "#", text
    )
    text = re.sub(r"#(,#)+", "#", text)
    try:
        return json.dumps(json.loads(text.replace("#", "0")), sort_keys=True)
    except json.JSONDecodeError:
        return " ".join(text.split())


def told(name: str) -> dict[str, Any]:
    """The fixture of that name."""
    found: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return found


def reason(answer: dict[str, Any]) -> str:
    """Return what it is taken for."""
    response = ErrorResponse(answer["service"], answer["status"], answer["headers"], answer["body"])
    return str(getattr(response.as_error(mutating=True), "reason", None))


@pytest.mark.parametrize("name", [*QUOTA, *OTHER])
def test_an_error_is_told_in_the_services_own_words_and_taken_for_what_it_is(
    scene: Scene, name: str
) -> None:
    expected, context, call = OTHER[name] if name in OTHER else ("quota", *QUOTA[name])
    answer, fixture = provoked(scene, context, call), told(name)
    assert reason(answer) == fixture["reason"] == expected
    for field in ("service", "status", "headers"):
        assert answer[field] == fixture[field]
    assert alike(answer["body"]) == alike(fixture["body"])
