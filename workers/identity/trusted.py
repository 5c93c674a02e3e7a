"""Publishers that are believed."""

from handlers.openstack.cloud import Cloud
from messages.codes import Code
from messages.errors import Refused, wrong
from workers.identity.requester import NOBODY, Requester
from workers.identity.tokenless import SOFT_DOWN
from workers.journal import Journal, Kind
from workers.request import Request


class TrustedPublishers:
    """Whoever may publish is believed (`ECS_TRUST_PUBLISHERS`): the body's `tenant_id` decides."""

    def __init__(self, cloud: Cloud, journal: Journal) -> None:
        self._cloud = cloud
        self._journal = journal

    async def identify(self, request: Request) -> Requester:
        if request.operation == SOFT_DOWN:
            return await self._of_no_tenant(request)
        if request.tenant is not None:
            return Requester((await self._cloud.find_project(request.tenant)).id)
        if request.kind is Kind.ORDER and request.name is not None:
            return Requester(await self._project_of_order(request, request.name))
        if request.instance_id is not None:
            return Requester(await self._owner_of(request.instance_id))
        raise wrong("tenant_id", "without a token the tenant_id must be given")

    async def proves(self, request: Request) -> bool:
        """Return True: whoever may publish is believed."""
        return True

    async def _of_no_tenant(self, request: Request) -> Requester:
        """A softDown may take down servers of several tenants, and is known by its flow alone."""
        if request.tenant is not None:
            await self._cloud.find_project(request.tenant)
        elif not self._cloud.has_admin:
            raise wrong(
                "tenant_id",
                "only an admin cloud (ECS_ADMIN_CLOUD) could tell whose the instances are",
            )
        return Requester(NOBODY)

    async def _project_of_order(self, request: Request, order_id: str) -> str:
        """An order without tenant acts in the project that owns its instance.

        The journal is asked first: a repeat must be known even when the instance is gone.
        """
        for known in await self._journal.find(order_id):
            if known.kind is Kind.ORDER and known.digest == request.digest:
                return known.tenant
        if request.instance_id is None:
            raise wrong("tenant_id", "the order names no instance whose owner could be asked for")
        return await self._owner_of(request.instance_id)

    async def _owner_of(self, instance_id: str) -> str:
        if not self._cloud.has_admin:
            raise wrong(
                "tenant_id",
                "only an admin cloud (ECS_ADMIN_CLOUD) could tell whose the instance is",
            )
        owner = await self._cloud.owner_of(instance_id)
        if owner is None:
            raise Refused(Code.SERVER_UNKNOWN, instance_id)
        return owner
