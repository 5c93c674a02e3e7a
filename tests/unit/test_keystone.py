"""Projects by name: Keystone is asked seldom, and an answer does not count for ever."""

import asyncio

import pytest

from handlers.openstack.keystone import ProjectName, ProjectNames, ProjectTimes, TenantIs
from messages.errors import Refused, Transient


class Keystone:
    """Holds what Keystone's list would say."""

    def __init__(self, *projects: ProjectName) -> None:
        self.projects = list(projects)
        self.asked = self.resolved = 0
        #: What a log-in shows while the list comes from a cache.
        self.renamed: list[ProjectName] = []
        self.is_down = False

    async def list_projects(self) -> list[ProjectName]:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.is_down:
            raise Transient("keystone")
        return list(self.projects)

    async def resolve(self, name: str) -> ProjectName | None:
        self.resolved += 1
        await asyncio.sleep(0.01)
        if self.is_down:
            raise Transient("keystone")
        return next((one for one in self.renamed or self.projects if one.name == name), None)


A, B = ProjectName("id-a", "a", "default"), ProjectName("id-b", "b", "default")


def names(keystone: Keystone, **times: float) -> ProjectNames:
    return ProjectNames(keystone.list_projects, keystone.resolve, "default", ProjectTimes(**times))


async def test_a_project_is_found_by_its_id_and_by_its_name_in_the_domain() -> None:
    keystone = Keystone(
        A, ProjectName("id-x", "x", "other-domain"), ProjectName("id-y", "id-a", "other-domain")
    )
    found = names(keystone)
    assert [await found.find(name) for name in ("a", "id-a", "x", "id-x", "nobody")] == [
        A,
        A,
        None,
        keystone.projects[1],
        None,
    ]
    assert keystone.asked == 1, "who makes names up does not have Keystone asked each time"


async def test_an_id_that_is_another_projects_name_is_refused_unless_it_is_said_which_it_is() -> (
    None
):
    other = ProjectName("id-evil", "id-a", "default")
    found = names(Keystone(A, other, ProjectName("same", "same", "default")))
    with pytest.raises(Refused, match="another's name") as caught:
        await found.find("id-a")
    assert caught.value.subject == "tenant_id"
    assert await found.find("id-a", TenantIs.ID) == A
    assert await found.find("id-a", TenantIs.NAME) == other
    assert await found.find("a", TenantIs.ID) is None
    assert await found.find("id-evil", TenantIs.NAME) is None
    assert await found.find("same") is not None, "its own id as its name is no other's"


async def test_all_waiters_share_one_call() -> None:
    keystone = Keystone(A)
    found = names(keystone)
    assert await asyncio.gather(*(found.find("a") for _ in range(100))) == [A] * 100
    assert (keystone.asked, keystone.resolved) == (1, 1)


async def test_a_name_that_now_means_another_project_is_resolved_anew() -> None:
    keystone = Keystone(A, B)
    found = names(keystone, name=0.05)
    assert await found.find("a") == A
    moved = ProjectName("id-b", "a", "default")
    keystone.renamed = [ProjectName("id-a", "a-old", "default"), moved]
    await asyncio.sleep(0.05)
    assert await found.find("a") == moved, (
        "nothing is done in the name before it is known whose it is now"
    )
    assert (await found.find("a", TenantIs.NAME)) == moved


async def test_a_stale_name_is_not_used_while_keystone_is_down() -> None:
    keystone = Keystone(A)
    found = names(keystone, name=0.05)
    await found.find("a")
    keystone.is_down = True
    await asyncio.sleep(0.05)
    with pytest.raises(Transient):
        await found.find("a")


async def test_the_list_is_renewed_in_the_background_before_it_is_old() -> None:
    keystone = Keystone(A)
    found = names(keystone, list=0.2, missing=0.05)
    await found.find("a")
    await asyncio.sleep(0.25)
    await found.find("a")
    await asyncio.sleep(0.05)
    assert keystone.asked == 2


async def test_an_id_is_known_while_keystone_is_down_but_not_for_ever() -> None:
    keystone = Keystone(A)
    found = names(keystone, list=0.0, list_most=0.3)
    await found.find("id-a")
    keystone.is_down = True
    assert await found.find("id-a") == A
    await asyncio.sleep(0.05)
    assert await found.find("id-a") == A
    await asyncio.sleep(0.3)
    with pytest.raises(Transient):
        await found.find("id-a")
    keystone.is_down = False
    assert await found.find("id-a") == A


async def test_while_keystone_is_down_no_project_counts_as_unknown() -> None:
    keystone = Keystone(A)
    keystone.is_down = True
    with pytest.raises(Transient):
        await names(keystone).find("a")
