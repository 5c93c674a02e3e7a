"""A project's name is looked up while the service account's password changes."""

from typing import Any

import pytest

from handlers.openstack import keystone, sessions
from handlers.openstack.sessions import CloudSettings
from messages.errors import Transient
from sandbox.openstack import SimulatedOpenStack


def test_a_password_that_changes_in_between_makes_no_project_unknown(
    simulated: SimulatedOpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CloudSettings("ecs-worker", config_file=str(simulated.clouds_yaml))
    account = sessions.connect(settings, settings.cloud)
    auth = account.config.config["auth"]
    right, access = auth["password"], keystone._access

    def changed_after_it(connection: Any) -> Any:
        try:
            return access(connection)
        finally:
            auth["password"] = right  # another thread has read clouds.yaml

    auth["password"] = "old"
    with pytest.raises(Transient, match="Unauthorized"):
        keystone.find_project(account, "tenant-a", settings)
    with pytest.raises(Transient, match="Unauthorized"):
        keystone.find_project(account, "nobody", settings)
    monkeypatch.setattr(keystone, "_access", changed_after_it)
    found = keystone.find_project(account, "tenant-a", settings)
    assert found is not None
    assert found.name == "tenant-a"
    assert keystone.find_project(account, "nobody", settings) is None
