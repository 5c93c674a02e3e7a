"""What an order would do: its checks and its steps, found out by the very planning that carries it
out, and no more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from handlers.context import ProjectContext, RequestContext
from handlers.openstack.errors import CloudRefusal
from handlers.orders.change_configure.handler import Changing
from handlers.orders.checks import Check, Checks
from handlers.orders.new.handler import Creating
from handlers.orders.renew.handler import Renewing
from handlers.orders.saga import Saga
from handlers.orders.soft_down.handler import foresee_taking_down
from handlers.orders.step import Deed
from handlers.orders.unsubscribe.handler import Ending
from handlers.servers.guard import unknown_server
from messages.codes import Code
from messages.errors import Refused, Transient, wrong
from messages.orders import (
    ChangeConfigure,
    NewServers,
    Order,
    Renew,
    SoftDown,
    Unsubscribe,
    is_paid,
    name_of,
    order_type_of,
    parse_order,
)
from messages.regions import check_order_region
from messages.results import Result

_UNDERTAKINGS: Mapping[type, Callable[[Any, ProjectContext], Saga]] = {
    ChangeConfigure: Changing,
    NewServers: Creating,
    Renew: Renewing,
    Unsubscribe: Ending,
}


class Verdict(StrEnum):
    """What would become of the order."""

    CARRIED_OUT = "carried_out"
    REFUSED = "refused"
    #: Something is in the way that passes: it would be tried again.
    PUT_OFF = "put_off"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What was found out. Where a check failed there are no deeds but those of a softDown on its
    other servers.
    """

    message: Mapping[str, Any]
    checks: list[Check]
    deeds: list[Deed]

    @property
    def failed(self) -> Check | None:
        """The check that would end it."""
        return next((one for one in self.checks if one.failure is not None), None)

    @property
    def verdict(self) -> Verdict:
        """What would become of it."""
        if self.failed is None:
            return Verdict.CARRIED_OUT
        return Verdict.PUT_OFF if self.failed.later else Verdict.REFUSED

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return {
            "orderId": name_of(self.message),
            "orderType": order_type_of(self.message),
            "verdict": self.verdict,
            **_outcome(self.failed.failure if self.failed is not None else None),
            "checks": [_check(one) for one in self.checks],
            "steps": [
                {"number": number, **deed.to_json()}
                for number, deed in enumerate(self.deeds, start=1)
            ],
            "cannotBeUndone": [
                number for number, deed in enumerate(self.deeds, start=1) if not deed.can_be_undone
            ],
        }


async def foresee(
    message: Mapping[str, Any], errand: RequestContext, project_id: str | None = None
) -> Forecast:
    """The forecast of an order message, in this project or in the one that it says or its instance
    is in.

    Nothing is touched. `Transient` where the cloud cannot be asked.
    """
    checks: Checks = errand.checks
    deeds: list[Deed] = []
    try:
        with checks.of("form"):
            order = _read(message, errand.policy.region)
        deeds = await _deeds(order, errand, project_id)
    except (Refused, CloudRefusal):
        pass  # the check that failed says why
    except Transient:
        if checks.failed is None:
            raise
    return Forecast(message, checks.listed, deeds)


def _read(message: Mapping[str, Any], region: str) -> Order:
    if not is_paid(message):
        raise wrong("orderStatus", "such an order asks for nothing: only paySuccess does")
    check_order_region(message, region)
    return parse_order(message)


async def _deeds(order: Order, errand: RequestContext, project_id: str | None) -> list[Deed]:
    if isinstance(order, SoftDown):
        return await foresee_taking_down(order, errand, project_id)
    with errand.checks.of("tenant"):
        context = await errand.in_project(await _project_of(order, errand, project_id))
    undertaking = _UNDERTAKINGS[type(order)](order, context)
    undertaking.recall(await undertaking.plan())
    return undertaking.deeds()


async def _project_of(order: Order, errand: RequestContext, project_id: str | None) -> str:
    cloud, tenant = errand.cloud, order.heading.tenant
    if tenant is not None:
        found = (await cloud.find_project(tenant)).id
        if project_id not in (None, found):
            raise Refused(Code.IDENTITY, detail="the order's tenant_id is another")
        return found
    if project_id is not None:
        return project_id
    instance = next(iter(order.instance_ids), None)
    if instance is None or not cloud.has_admin:
        raise wrong(
            "tenant_id", "only an admin cloud (ECS_ADMIN_CLOUD) could tell whose the instance is"
        )
    owner = await errand.retrying(lambda: cloud.owner_of(instance))
    if owner is None:
        raise unknown_server(instance, None)
    return owner


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "instanceId": check.instance_id,
        "passed": check.failure is None,
        **_outcome(check.failure),
    }


def _outcome(failure: Refused | None) -> dict[str, Any]:
    if failure is None:
        result = Result.of(Code.OK)
        return {"code": result.code, "message": result.message, "reason": None, "detail": None}
    result = Result.refusal(failure)
    return {
        "code": result.code,
        "message": result.message,
        "reason": failure.reason,
        "detail": failure.detail,
    }
