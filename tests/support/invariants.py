"""Checks what must hold after every fault (faults.md): one result, no effect twice, nothing
vanished.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psutil

from sandbox.requester import Heard, Requester, Source
from tests.support.kinds import Asked, Resource
from tests.support.tenant import Tenant

#: Megabytes by which a process may have grown (I4), and seconds until it works again (I5).
MEMORY, RECOVERY = 50.0, 30.0
FAILED = "101.001040"


@dataclass
class Report:
    """Holds what was counted, and what is broken, a line each."""

    inputs: int = 0
    results: int = 0
    parked: int = 0
    duplicate_effects: int = 0
    lost: int = 0
    #: Commands that were told that the platform failed or did not answer in time.
    in_vain: int = 0
    broken: list[str] = field(default_factory=list)


def await_ends(requester: Requester, asked: Iterable[Asked], seconds: float = 90.0) -> None:
    """Wait until each has its result and as many final updates as there must be."""
    for one in asked:
        wait = requester.order_result_of if one.is_order else requester.result_of
        wait(one.message_id, seconds)
        for kind, name in one.finals:
            known = None if name.startswith("*") else name
            requester.last_update_of(kind, one.message_id, seconds, resource_id=known)


def check(
    heard: Iterable[Heard], asked: Iterable[Asked], tenant: Tenant, executed: Iterable[str] | None
) -> None:
    """Fail with a line for everything that does not hold. `executed`: None where the cloud cannot
    tell.
    """
    found = report(list(heard), list(asked), tenant, None if executed is None else list(executed))
    assert not found.broken, "\n".join(found.broken)


def report(
    heard: list[Heard],
    asked: list[Asked],
    tenant: Tenant,
    executed: list[str] | None,
    *,
    lenient: bool = False,
) -> Report:
    """All of the requests looked at. `lenient`: a command's time may have run out; then it has one
    effect, or none.
    """
    found = Report(inputs=len(asked))
    for one in asked:
        if lenient and not one.is_order and _failed(one, heard):
            found.in_vain += 1
            _check_at_most_once(one, heard, tenant, executed or [], found)
            continue
        _check_result(one, heard, found)
        _check_finals(one, heard, found)
        _check_owner(one, heard, tenant, found)
        check_effects(one, tenant, executed, found)
    return found


def _failed(one: Asked, heard: list[Heard]) -> bool:
    codes = {each.body["code"] for each in _results(one, heard)}
    return codes == {FAILED} and one.code != FAILED


def _results(one: Asked, heard: list[Heard]) -> list[Heard]:
    source = Source.ORDER_RESULT if one.is_order else Source.REPLY
    return [
        each for each in heard if each.source is source and each.correlation_id == one.message_id
    ]


def _check_at_most_once(
    one: Asked, heard: list[Heard], tenant: Tenant, executed: list[str], found: Report
) -> None:
    """One result still, and of whatever was done of it, nothing twice."""
    found.results += 1
    if (
        len({(str(each.properties.get("message_id")), each.raw) for each in _results(one, heard)})
        > 1
    ):
        found.broken.append(f"{one.kind}: results that differ")
    for pattern in one.calls:
        times = sum(re.search(pattern, call) is not None for call in executed)
        if times > 1:
            found.duplicate_effects += times - 1
            found.broken.append(f"{one.kind}: {pattern} was executed {times} times")
    for server_id, wanted in one.actions.items():
        if more := Counter(tenant.actions(server_id)) - Counter(wanted):
            found.duplicate_effects += more.total()
            found.broken.append(f"{one.kind}: Nova's log has more than there must be: {more}")


def _check_result(one: Asked, heard: list[Heard], found: Report) -> None:
    """I1 and I3: copies share id and body."""
    results = _results(one, heard)
    copies = {(str(each.properties.get("message_id")), each.raw) for each in results}
    if not copies:
        found.lost += 1
        found.broken.append(f"{one.kind}: no result")
    else:
        found.results += 1
    if len(copies) > 1:
        found.broken.append(f"{one.kind}: results that differ: {sorted(copies)}")
    if results and results[0].body["code"] != one.code:
        found.broken.append(f"{one.kind}: answered {results[0].body}")


def _check_finals(one: Asked, heard: list[Heard], found: Report) -> None:
    """Just one final update for each resource, and no other that is new after it."""
    updates = [
        each
        for each in heard
        if each.source is Source.STATUS and each.body["message_id"] == one.message_id
    ]
    finals: dict[Resource, set[tuple[str, bytes]]] = {}
    for each in updates:
        if each.body["final"]:
            resource = (each.body["resource"], each.body["id"])
            finals.setdefault(resource, set()).add(
                (str(each.properties.get("message_id")), each.raw)
            )
    told = {resource: _status(copies) for resource, copies in finals.items()}
    if _anonymous(told, one.finals) != Counter(_keyed(one.finals)):
        found.broken.append(f"{one.kind}: ended as {told}, not as {dict(one.finals)}")
    found.broken += [
        f"{one.kind}: {len(copies)} different final updates of {resource}"
        for resource, copies in finals.items()
        if len(copies) > 1
    ]


def _check_owner(one: Asked, heard: list[Heard], tenant: Tenant, found: Report) -> None:
    """Each update says whose it is: the project, which no softDown as a whole has, and the user,
    whom every paid order names.
    """
    for each in heard:
        if each.source is not Source.STATUS or each.body["message_id"] != one.message_id:
            continue
        if "tenant_id" not in each.body:
            continue  # published by the version before
        body = each.body
        is_soft_down = body["operation"] == "order.softDown"
        has_project = not (is_soft_down and body["resource"] == "order")
        if body["tenant_id"] != (tenant.project_id if has_project else None):
            found.broken.append(f"{one.kind}: an update of project {body['tenant_id']}: {body}")
        if "user_id" not in body or (one.is_order and not is_soft_down and not body["user_id"]):
            found.broken.append(f"{one.kind}: an update without user: {body}")


def _status(copies: set[tuple[str, bytes]]) -> str:
    return str(json.loads(next(iter(copies))[1])["status"])


def _keyed(finals: Mapping[Resource, str]) -> list[tuple[str, str, str]]:
    return [
        (kind, "*" if name.startswith("*") else name, status)
        for (kind, name), status in finals.items()
    ]


def _anonymous(
    told: Mapping[Resource, str], wanted: Mapping[Resource, str]
) -> "Counter[tuple[str, str, str]]":
    """An id that cannot be known beforehand is wanted as `*`, several as `*1`, `*2` ..."""
    unknown = {kind for kind, name in wanted if name.startswith("*")}
    return Counter(
        (kind, "*" if kind in unknown and (kind, name) not in wanted else name, status)
        for (kind, name), status in told.items()
    )


def check_effects(one: Asked, tenant: Tenant, executed: list[str] | None, found: Report) -> None:
    """I2: what the cloud executed, not what it was sent."""
    for pattern in one.calls if executed is not None else ():
        times = sum(re.search(pattern, call) is not None for call in executed or ())
        if times != 1:
            found.duplicate_effects += max(0, times - 1)
            found.broken.append(f"{one.kind}: {pattern} was executed {times} times")
    for server_id, wanted in one.actions.items():
        logged = tenant.actions(server_id)
        if logged != wanted:
            found.duplicate_effects += max(0, len(logged) - len(wanted))
            found.broken.append(f"{one.kind}: Nova's log says {logged}, not {list(wanted)}")
    if not one.holds():
        found.broken.append(f"{one.kind}: the cloud is not as it must be")


def resident_megabytes(pid: int) -> float:
    """Return what a process has in memory."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
