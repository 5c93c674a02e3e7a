"""A tenant's own view of the cloud, by openstacksdk: makes what a test needs, looks what was done,
cleans up.
"""

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
from openstack.config import OpenStackConfig

from tests.support.waiting import eventually

COMPUTE, VOLUME = "2.67", "3.60"
# of nobody
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKr0Vb3ZbMZYd4Vq6nYQJQ3uW8jv0n5mJw0o3m3mZl8s test"


class Tenant:
    """One project, logged in as its own user."""

    def __init__(self, clouds_yaml: Path, name: str) -> None:
        self._clouds_yaml = clouds_yaml
        region = OpenStackConfig(config_files=[str(clouds_yaml)], load_envvars=False).get_one(name)
        self.connection = openstack.connection.Connection(config=region)
        self.flavors = {one.name: one.id for one in self.connection.compute.flavors()}
        # Not the newest: other tests' snapshots are shown, too.
        self.image: str = next(one.id for one in self.connection.image.images(name="cirros-like"))
        self.project_id = str(self.connection.session.get_project_id())
        self._made: list[str] = []
        self._rest: list[tuple[str, str]] = []

    def make_server(
        self,
        *,
        name: str = "test",
        disk: int | None = 10,
        data: tuple[tuple[str, int], ...] = (),
        paid: bool = True,
        flavor: str = "S1.small.1",
        image: str | None = None,
        **fields: Any,
    ) -> str:
        """A running server: `disk` GiB of type SATA for its system (None: a local disk), `data`
        volumes (type, GiB).
        """
        body: dict[str, Any] = {
            "name": name,
            "flavorRef": self.flavors[flavor],
            "networks": "none",
            "metadata": {"charge_type": "monthly"} if paid else {},
            **fields,
        }
        if "block_device_mapping_v2" in fields:
            pass  # disks of the caller's own
        elif disk is None:
            body["imageRef"] = image or self.image
        else:
            body["block_device_mapping_v2"] = [
                {
                    "boot_index": 0,
                    "uuid": image or self.image,
                    "source_type": "image",
                    "destination_type": "volume",
                    "volume_size": disk,
                    "volume_type": "SATA",
                    "delete_on_termination": True,
                },
                *(
                    {
                        "boot_index": -1,
                        "source_type": "blank",
                        "destination_type": "volume",
                        "volume_size": size,
                        "volume_type": kind,
                        "delete_on_termination": True,
                    }
                    for kind, size in data
                ),
            ]
        answer = self.connection.compute.post(
            "/servers", json={"server": body}, microversion=COMPUTE
        )
        assert answer.status_code == 202, answer.text
        server_id: str = answer.json()["server"]["id"]
        self._made.append(server_id)
        self.wait(server_id, lambda server: server["status"] != "BUILD")
        assert self.server(server_id)["status"] == "ACTIVE", self.server(server_id).get("fault")
        return server_id

    def make_servers(self, number: int, *, name: str | None = None, **fields: Any) -> list[str]:
        """So many paid servers with local disks, made at once; a name of nobody else's."""
        name = (
            name or f"many-{uuid.uuid4().hex[:8]}"
        )  # what another test left behind is not counted
        body = {
            "name": name,
            "flavorRef": self.flavors["S1.small.1"],
            "networks": "none",
            "imageRef": self.image,
            "metadata": {"charge_type": "monthly"},
            "min_count": number,
            "max_count": number,
            **fields,
        }
        answer = self.connection.compute.post(
            "/servers", json={"server": body}, microversion=COMPUTE
        )
        assert answer.status_code == 202, answer.text
        path = f"/servers/detail?name=^{name}"
        ids: list[str] = []

        def are_there() -> bool:
            listed = self.connection.compute.get(path, microversion=COMPUTE).json()["servers"]
            ids[:] = [one["id"] for one in listed]
            self._made += [one for one in ids if one not in self._made]
            if len(listed) != number or any(one["status"] == "BUILD" for one in listed):
                return False
            assert {one["status"] for one in listed} == {"ACTIVE"}
            return True

        eventually(are_there, 600)
        return ids

    def make_image(self, name: str, **fields: Any) -> str:
        """A private image that can be used, with these attributes and properties besides."""
        wanted = {
            "name": name,
            "visibility": "private",
            "disk_format": "raw",
            "container_format": "bare",
        } | fields
        made = self.connection.image.post("/images", json=wanted)
        assert made.status_code == 201, made.text
        image_id: str = made.json()["id"]
        kind = {"Content-Type": "application/octet-stream"}
        filled = self.connection.image.put(f"/images/{image_id}/file", data=b"image", headers=kind)
        assert filled.status_code == 204, filled.text
        return image_id

    def images(self, name: str, image_id: str | None = None) -> list[dict[str, Any]]:
        """The tenant's images of that name; with an id, that one or none."""
        if image_id is not None:
            answer = self.connection.image.get(f"/images/{image_id}")
            return [answer.json()] if answer.status_code == 200 else []
        found: list[dict[str, Any]] = self.connection.image.get(f"/images?name={name}").json()[
            "images"
        ]
        return found

    def stop(self, server_id: str) -> None:
        """Have a server stopped."""
        self.act(server_id, {"os-stop": None})
        self.wait(
            server_id, lambda one: one["status"] == "SHUTOFF" and not one["OS-EXT-STS:task_state"]
        )

    def act(self, server_id: str, body: dict[str, Any]) -> None:
        """An action that the test itself takes."""
        answer = self.connection.compute.post(
            f"/servers/{server_id}/action", json=body, microversion=COMPUTE
        )
        assert answer.status_code < 300, answer.text

    def server(self, server_id: str) -> dict[str, Any]:
        """The server as Nova shows it."""
        answer = self.connection.compute.get(f"/servers/{server_id}", microversion=COMPUTE)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["server"]
        return found

    def is_gone(self, server_id: str) -> bool:
        """Tell whether Nova knows the server no more, or as one that it has deleted: it may be seen
        for a moment longer.
        """
        found = self.connection.compute.get(f"/servers/{server_id}", microversion=COMPUTE)
        if found.status_code == 404:
            return True
        return bool(found.status_code == 200 and found.json()["server"]["status"] == "DELETED")

    def wait(
        self, server_id: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """The server once something holds of it."""
        server: dict[str, Any] = {}

        def look() -> bool:
            nonlocal server
            server = self.server(server_id)
            return holds(server)

        eventually(
            look, seconds, lambda: f"still {server['status']} {server['OS-EXT-STS:task_state']}"
        )
        return server

    def volumes(self, server_id: str) -> list[dict[str, Any]]:
        """The server's volumes as Cinder shows them, in the order of their devices."""
        found = [
            self.connection.block_storage.get(f"/volumes/{one['id']}", microversion=VOLUME).json()[
                "volume"
            ]
            for one in self.server(server_id)["os-extended-volumes:volumes_attached"]
        ]
        return sorted(found, key=lambda one: str(one["attachments"][0]["device"]))

    def actions(self, server_id: str) -> list[str]:
        """The names in the server's action log of what users asked Nova for, oldest first."""
        return [name for name in self.all_actions(server_id) if name != "extend_volume"]

    def all_actions(self, server_id: str) -> list[str]:
        """The names in the server's action log, oldest first; also of what Cinder told Nova."""
        answer = self.connection.compute.get(
            f"/servers/{server_id}/os-instance-actions", microversion=COMPUTE
        )
        return [one["action"] for one in reversed(answer.json()["instanceActions"])]

    def request_ids(self, server_id: str, *names: str) -> list[str]:
        """OpenStack's ids of the calls that began these actions."""
        answer = self.connection.compute.get(
            f"/servers/{server_id}/os-instance-actions", microversion=COMPUTE
        )
        return [
            one["request_id"] for one in answer.json()["instanceActions"] if one["action"] in names
        ]

    def set_metadata(self, server_id: str, **items: str) -> None:
        """Give a server these items of metadata."""
        path = f"/servers/{server_id}/metadata"
        answer = self.connection.compute.post(path, json={"metadata": items}, microversion=COMPUTE)
        assert answer.status_code == 200, answer.text

    def service_key(self) -> str:
        """The name of a key pair that the service account has: whose key pairs are used is whose
        log-in is used.
        """
        config = OpenStackConfig(config_files=[str(self._clouds_yaml)], load_envvars=False).get_one(
            "ecs-worker"
        )
        with openstack.connection.Connection(config=config) as account:
            body = {"keypair": {"name": "ecs-test", "type": "ssh", "public_key": PUBLIC_KEY}}
            answer = account.compute.post("/os-keypairs", json=body, microversion=COMPUTE)
            assert answer.status_code in (201, 409), answer.text
        return "ecs-test"

    def subnet(self) -> str:
        """The id of its own subnet."""
        listed = self.connection.network.get(f"/subnets?project_id={self.project_id}").json()[
            "subnets"
        ]
        found: str = next(one["id"] for one in listed if one["name"].startswith("tenant-"))
        return found

    def ports(self) -> list[dict[str, Any]]:
        """Its ports as Neutron shows them."""
        found: list[dict[str, Any]] = self.connection.network.get(
            f"/ports?project_id={self.project_id}"
        ).json()["ports"]
        return found

    def servers_ever(self) -> list[dict[str, Any]]:
        """Its servers, those that are gone among them."""
        path = "/servers/detail?changes-since=2020-01-01T00:00:00Z"
        found: list[dict[str, Any]] = self.connection.compute.get(
            path, microversion=COMPUTE
        ).json()["servers"]
        return found

    def all_volumes(self) -> list[dict[str, Any]]:
        """Its volumes."""
        answer = self.connection.block_storage.get("/volumes/detail", microversion=VOLUME)
        found: list[dict[str, Any]] = answer.json()["volumes"]
        return found

    def has_volume(self, volume_id: str) -> bool:
        """Tell whether there is such a volume."""
        return (
            self.connection.block_storage.get(
                f"/volumes/{volume_id}", microversion=VOLUME
            ).status_code
            == 200
        )

    def make_server_with_floating_ip(self, **fields: Any) -> tuple[str, str]:
        """A running server in its own network, and the id of the floating IP of its port."""
        networks = {
            one["name"]: one for one in self.connection.network.get("/networks").json()["networks"]
        }
        own = next(one for name, one in networks.items() if name.startswith("tenant-"))
        server_id = self.make_server(networks=[{"uuid": own["id"]}], **fields)
        port = next(one["id"] for one in self.ports() if one["device_id"] == server_id)
        body = {"floating_network_id": networks["public"]["id"], "port_id": port}
        answer = self.connection.network.post("/floatingips", json={"floatingip": body})
        assert answer.status_code == 201, answer.text
        floating_ip: str = answer.json()["floatingip"]["id"]
        self.later("network", f"/floatingips/{floating_ip}")
        return server_id, floating_ip

    def floating_ip(self, floating_ip_id: str) -> dict[str, Any]:
        """A floating IP as Neutron shows it."""
        listed = self.connection.network.get(f"/floatingips?id={floating_ip_id}").json()[
            "floatingips"
        ]
        found: dict[str, Any] = listed[0]
        return found

    def adopt(self, server_id: str) -> None:
        """Have a server deleted that somebody else made."""
        self._made.append(server_id)

    def forget(self) -> None:
        """Leave what was made where it is."""
        self._made.clear()
        self._rest.clear()

    def later(self, service: str, path: str) -> None:
        """Have something deleted when the servers are."""
        self._rest.append((service, path))

    def close(self) -> None:
        """Delete what was made and log out."""
        for server_id in self._made:
            if self.connection.compute.delete(f"/servers/{server_id}").status_code == 409:
                # An order that was cut off has locked it.
                self.connection.compute.post(f"/servers/{server_id}/action", json={"unlock": None})
                self.connection.compute.delete(f"/servers/{server_id}")

        def are_gone() -> bool:
            while self._made:
                path = f"/servers/{self._made[-1]}"
                if self.connection.compute.get(path, microversion=COMPUTE).status_code != 404:
                    return False
                self._made.pop()
            return True

        has_servers = bool(self._made)
        with contextlib.suppress(AssertionError):  # those that a test has made stay
            eventually(are_gone, 240)
            if has_servers:
                # Cinder goes on when Nova has ended, and what is left counts for the next test's
                # quota.
                eventually(
                    lambda: all(one["status"] != "deleting" for one in self.all_volumes()), 60
                )
        for service, path in reversed(self._rest):
            getattr(self.connection, service).delete(path)
        self.connection.close()
