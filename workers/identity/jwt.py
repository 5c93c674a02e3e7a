"""Bearers of tokens: each message proves by itself who asks, and for which project."""

from handlers.openstack.cloud import Cloud
from handlers.openstack.keystone import TenantIs
from workers.amqp.envelope import Envelope
from workers.identity.requester import NotProven, Requester
from workers.identity.tenants import project_of
from workers.identity.tokenless import SOFT_DOWN, may_omit_token
from workers.identity.trusted import TrustedPublishers
from workers.identity.verifier import Expired, TokenVerifier
from workers.journal import Journal, Kind
from workers.request import Request


class TokenBearers:
    """Asks for a token; of `tokenless` (AMQP users) for none where they send softDown.

    `tenant_is` says how the tenant's claim is written; None: as an id or a name.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        cloud: Cloud,
        journal: Journal,
        tokenless: frozenset[str],
        tenant_is: TenantIs | None = None,
    ) -> None:
        self._tenant_is = tenant_is
        self._verifier = verifier
        self._cloud = cloud
        self._journal = journal
        self._tokenless = tokenless
        self._believed = TrustedPublishers(cloud, journal)

    async def identify(self, request: Request) -> Requester:
        if request.operation == SOFT_DOWN:
            return await self._without_token(request)
        envelope = request.envelope
        # Nobody may fill the queue of all commands by making key ids up, and whoever sent one can
        # send it again.
        rotated_since = envelope.arrived if request.kind is Kind.ORDER else None
        try:
            claims = await self._verifier.verify(
                request.token, request.user_id, published_at(envelope), rotated_since
            )
        except Expired as expired:
            project_id = await self._project_of(expired.claims.tenant, request)
            if not await self._was_verified(request, project_id):
                raise
            return Requester(project_id)
        return Requester(await self._project_of(claims.tenant, request))

    async def _project_of(self, tenant: str, request: Request) -> str:
        return await project_of(self._cloud, tenant, request.tenant, self._tenant_is)

    async def proves(self, request: Request) -> bool:
        """Return whether the message's token is that of its user, or its publisher needs none."""
        if request.operation == SOFT_DOWN:
            return may_omit_token(request.envelope, self._tokenless)
        envelope = request.envelope
        try:
            await self._verifier.verify(request.token, request.user_id, published_at(envelope))
        except Expired:
            found = await self._journal.find(request.name or "")
            return any(one.kind is request.kind and one.digest == request.digest for one in found)
        except NotProven:
            return False
        return True

    async def _without_token(self, request: Request) -> Requester:
        if not may_omit_token(request.envelope, self._tokenless):
            raise NotProven(
                "softDown is taken from the publishers in ECS_TOKENLESS_PUBLISHERS alone"
            )
        return await self._believed.identify(request)

    async def _was_verified(self, request: Request, project_id: str) -> bool:
        """Whether this request was begun in this project: then its token did count, when it first
        came.
        """
        key = request.key(project_id)
        if key is None:
            return False
        return any(
            one.key == key and one.digest == request.digest for one in await self._journal.find(key)
        )


def published_at(envelope: Envelope) -> float:
    """When the message was published, in Unix seconds; in the future, and unknown when, counts as
    now.
    """
    return (
        min(float(envelope.timestamp), envelope.arrived) if envelope.timestamp else envelope.arrived
    )
