"""Messages that are known again by a pass, for their token is masked."""

from dataclasses import replace

import structlog

from handlers.openstack.cloud import Cloud
from messages.secrets import MASK
from workers.identity.requester import Identity, Requester
from workers.identity.resume_tokens import ReplayAuthority, Replays, hash_of
from workers.identity.tenants import project_of
from workers.identity.tokenless import SOFT_DOWN
from workers.identity.trusted import TrustedPublishers
from workers.journal import Journal
from workers.request import Request

log = structlog.get_logger()


class Readmission:
    """Knows by its pass what was verified once, or what an operator answers for; asks `first_time`
    about the rest.
    """

    def __init__(
        self, first_time: Identity, cloud: Cloud, journal: Journal, replays: Replays | None
    ) -> None:
        self._first_time = first_time
        self._cloud = cloud
        self._journal = journal
        self._replays = replays
        #: What an operator has looked at, and says nothing else about, is believed.
        self._believed = TrustedPublishers(cloud, journal)

    async def identify(self, request: Request) -> Requester:
        word = request.envelope.resume_token
        # A token that is there is verified, whatever else the message carries.
        if word is not None and request.token in (None, MASK):
            found = await self._by_pass(request, word)
            if found is not None:
                return found
        return await self._first_time.identify(request)

    async def proves(self, request: Request) -> bool:
        """Return whether a pass, an operator's word or the message itself proves who sent it."""
        word = request.envelope.resume_token
        if word is not None and request.token in (None, MASK):
            if await self._is_admitted(request, word) is not None:
                return True
            if self._replays is not None and await self._replays.replay_of(word, request.digest):
                return True
        return await self._first_time.proves(request)

    async def _is_admitted(self, request: Request, word: str) -> str | None:
        """The tenant in which the request was given this pass; None where it was not."""
        if request.name is None:
            return None
        return await self._journal.admitted(
            request.kind, request.name, request.digest, hash_of(word)
        )

    async def _by_pass(self, request: Request, word: str) -> Requester | None:
        tenant = await self._is_admitted(request, word)
        if tenant is not None:
            return Requester(tenant, resume_token=word)
        authority = (
            await self._replays.replay_of(word, request.digest)
            if self._replays is not None
            else None
        )
        return await self._replayed(request, authority) if authority is not None else None

    async def _replayed(self, request: Request, authority: ReplayAuthority) -> Requester:
        log.info(
            "request.replayed", message_id=request.envelope.message_id, operator=authority.operator
        )
        if authority.tenant is not None and request.operation != SOFT_DOWN:
            project_id = await project_of(self._cloud, authority.tenant, request.tenant)
            return Requester(project_id, operator=authority.operator)
        return replace(await self._believed.identify(request), operator=authority.operator)
