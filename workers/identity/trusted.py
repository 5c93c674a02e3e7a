"""Authentication under `ECS_TRUST_PUBLISHERS`: no tokens, the body names the tenant."""

from handlers.openstack.cloud import Cloud
from messages.errors import wrong
from workers.identity.requester import NO_PROJECT, SOFT_DOWN, Requester
from workers.journal import Journal, Kind
from workers.request import Request


class TrustedPublishers:
    """Trusts every publisher: the body's `tenant_id`, or the owner of the instance, decides."""

    def __init__(self, cloud: Cloud, journal: Journal) -> None:
        self._cloud = cloud
        self._journal = journal

    async def identify(self, request: Request) -> Requester:
        if request.operation == SOFT_DOWN:
            return await self._without_project(request)
        if request.tenant is not None:
            return Requester((await self._cloud.find_project(request.tenant)).id)
        if request.kind is Kind.ORDER and request.name is not None:
            return Requester(await self._project_of_order(request, request.name))
        if request.instance_id is not None:
            return Requester(await self._cloud.require_owner(request.instance_id))
        raise wrong("tenant_id", "without a token the tenant_id must be given")

    async def proves(self, request: Request) -> bool:
        """Return True: every publisher is trusted."""
        return True

    async def _without_project(self, request: Request) -> Requester:
        """A softDown may name servers of several tenants; its flow alone is its key."""
        if request.tenant is not None:
            await self._cloud.find_project(request.tenant)
        elif not self._cloud.has_admin:
            raise wrong(
                "tenant_id",
                "only an admin cloud (ECS_ADMIN_CLOUD) could tell whose the instances are",
            )
        return Requester(NO_PROJECT)

    async def _project_of_order(self, request: Request, order_id: str) -> str:
        """An order without a tenant acts in the project that owns its instance.

        The journal is searched first: a repeat must be recognized even when the instance is gone.
        """
        for known in await self._journal.find(order_id):
            if request.is_same_as(known):
                return known.tenant
        if request.instance_id is None:
            raise wrong("tenant_id", "the order names no instance whose owner could be asked for")
        return await self._cloud.require_owner(request.instance_id)
