"""Which project a name means: asked for seldom, known while Keystone is away, and not for ever."""

import asyncio

import pytest

from handlers import projects as module
from handlers.projects import ProjectName, ProjectNames
from messages.errors import Transient


class Keystone:
    """What Keystone's list would say."""

    def __init__(self, *projects: ProjectName) -> None:
        self.projects = list(projects)
        self.asked = 0
        self.is_down = False

    async def list_projects(self) -> list[ProjectName]:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.is_down:
            raise Transient("keystone")
        return list(self.projects)


A, B = ProjectName("id-a", "a", "default"), ProjectName("id-b", "b", "default")


def names(keystone: Keystone) -> ProjectNames:
    return ProjectNames(keystone.list_projects, "default")


async def test_a_project_is_found_by_its_id_and_by_its_name_in_the_domain() -> None:
    keystone = Keystone(A, ProjectName("id-x", "x", "other-domain"), ProjectName("id-evil", "id-a", "default"))
    found = names(keystone)
    assert [await found.find(name) for name in ("a", "id-a", "x", "id-x", "nobody")] == [
        A, A, None, keystone.projects[1], None,
    ]  # fmt: skip
    assert keystone.asked == 1, "who makes names up does not have Keystone asked each time"


async def test_all_who_wait_are_told_by_one_question() -> None:
    keystone = Keystone(A)
    found = names(keystone)
    assert await asyncio.gather(*(found.find("a") for _ in range(100))) == [A] * 100
    assert keystone.asked == 1


async def test_a_name_that_means_another_project_now_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH", 0.0)
    monkeypatch.setattr(module, "MISSING_LASTS", 0.0)
    keystone = Keystone(A, B)
    found = names(keystone)
    assert await found.find("a") == A
    keystone.projects = [ProjectName("id-a", "a-old", "default"), ProjectName("id-b", "a", "default")]
    await found.find("a")
    await asyncio.sleep(0.1)
    renamed = await found.find("a")
    assert renamed is not None
    assert renamed.id == "id-b"


async def test_what_is_known_is_known_while_keystone_is_away_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH", 0.0)
    keystone = Keystone(A)
    found = names(keystone)
    await found.find("a")
    keystone.is_down = True
    assert await found.find("a") == A
    await asyncio.sleep(0.05)
    assert await found.find("a") == A
    monkeypatch.setattr(module, "OLD", 0.0)
    with pytest.raises(Transient):
        await found.find("a")
    keystone.is_down = False
    assert await found.find("a") == A


async def test_while_keystone_is_away_nobody_is_unknown() -> None:
    keystone = Keystone(A)
    keystone.is_down = True
    with pytest.raises(Transient):
        await names(keystone).find("a")
