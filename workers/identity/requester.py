"""The sender of a request, and the project that the request acts in."""

from collections.abc import Collection
from typing import Protocol

from handlers.openstack.cloud import Cloud
from handlers.openstack.keystone import TenantIs
from messages.codes import Code
from messages.errors import Refused
from messages.record import record
from workers.amqp.envelope import Envelope
from workers.request import Request

#: In place of a project's id: the request belongs to no tenant, and each of its servers is changed
#: in the project that owns it.
NO_PROJECT = "-"
#: The one operation whose messages have no token.
SOFT_DOWN = "order.softDown"


@record
class Requester:
    """The project that a request acts in, or `NO_PROJECT`.

    `operator` is set where an operator's replay authorized the request, not its own message;
    `resume_token` where the message was authenticated by one, which may be used again.
    """

    project_id: str
    operator: str | None = None
    resume_token: str | None = None


class NotProven(Refused):
    """The sender is not authenticated. The log and operators see the reason, the sender does not."""

    def __init__(self, why: str) -> None:
        super().__init__(Code.IDENTITY, detail=why)


class Identity(Protocol):
    """A way to authenticate the sender of a request."""

    async def identify(self, request: Request) -> Requester:
        """Return the requester. Raises `Refused`, or `Transient` where a later try may succeed."""

    async def proves(self, request: Request) -> bool:
        """Return whether the sender of a message that is rejected anyway is who it claims to be.

        Makes no call to OpenStack. Raises `Transient` where a later try may succeed.
        """


def may_omit_token(envelope: Envelope, publishers: Collection[str]) -> bool:
    """Return whether a message without a token is accepted: only from these AMQP users.

    RabbitMQ rejects a message whose `user_id` is not the user of its connection, so the property
    can be trusted; a message without it comes from an unknown publisher.
    """
    return envelope.user_id is not None and envelope.user_id in publishers


async def project_of(
    cloud: Cloud, proven: str, claimed: str | None, proven_as: TenantIs | None = None
) -> str:
    """Return the id of the proven project. Raises `NotProven` where the message claims another.

    `proven` is an id or a name, as `proven_as` says; None: either. Projects are compared, not
    texts: one may be an id and the other a name.
    """
    project = await _find(cloud, proven, proven_as, "the project that is proven")
    if claimed is not None and (claimed != proven or proven_as is not None):
        other = await _find(cloud, claimed, None, "the tenant_id's project")
        if other != project:
            raise NotProven("the tenant_id is not the project that is proven")
    return project


async def _find(cloud: Cloud, tenant: str, written: TenantIs | None, which: str) -> str:
    try:
        return (await cloud.find_project(tenant, written)).id
    except Refused as refused:
        raise NotProven(f"{which}: {refused.detail}") from None
