"""Resume tokens: how a message is authenticated again after its access token was masked.

A message that comes back from a retry queue, or that an operator replays, has its access token
masked, because no secret is stored. It carries a random resume token instead, in the header
`x-ecs-pass`; the journal has the SHA-256 of the resume token and what it authorizes. So neither
somebody who reads only the queues nor somebody who reads only the journal can make a message that
is accepted, and a resume token is valid only for the content (the digest) that it was issued for.
"""

import hashlib
import secrets
from dataclasses import replace
from typing import Protocol

import structlog

from handlers.openstack.cloud import Cloud
from messages.errors import Transient
from messages.record import record
from messages.secrets import MASK
from workers.identity.requester import SOFT_DOWN, Identity, Requester, project_of
from workers.identity.trusted import TrustedPublishers
from workers.journal import Journal, JournalError
from workers.request import Request

log = structlog.get_logger()


def new_resume_token() -> str:
    """Return a random resume token of 256 bits."""
    return secrets.token_urlsafe(32)


def hash_of(resume_token: str) -> str:
    """Return what the journal stores of a resume token: SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(resume_token.encode()).hexdigest()


@record
class ReplayAuthority:
    """The operator who replays a message, and the project (id or name) that he named; None: the
    message names it.
    """

    operator: str
    tenant: str | None


class Replays(Protocol):
    """The replays that operators have started."""

    async def replay_of(self, resume_token: str, digest: str) -> ReplayAuthority | None:
        """Return who authorized the replay of the message with this digest, or None.

        Raises `Transient` where a later try may succeed.
        """


class JournalReplays:
    """Replays in the journal, which also records that a replayed message has arrived."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def replay_of(self, resume_token: str, digest: str) -> ReplayAuthority | None:
        """Implement `Replays.replay_of`."""
        try:
            found = await self._journal.redeem(hash_of(resume_token), digest)
        except JournalError as error:
            raise Transient("journal", detail=str(error)) from None
        return ReplayAuthority(found.by, found.tenant) if found is not None else None


class ResumeTokenAuthentication:
    """Authenticates by resume token what was authenticated before, or what an operator replays;
    leaves everything else to `otherwise`.
    """

    def __init__(
        self, otherwise: Identity, cloud: Cloud, journal: Journal, replays: Replays
    ) -> None:
        self._otherwise = otherwise
        self._cloud = cloud
        self._journal = journal
        self._replays = replays
        #: What an operator has replayed without naming a tenant is trusted.
        self._trusted = TrustedPublishers(cloud, journal)

    async def identify(self, request: Request) -> Requester:
        resume_token = _resume_token_of(request)
        if resume_token is not None:
            tenant = await self._tenant_of(request, resume_token)
            if tenant is not None:
                return Requester(tenant, resume_token=resume_token)
            authority = await self._replays.replay_of(resume_token, request.digest)
            if authority is not None:
                return await self._replayed(request, authority)
        return await self._otherwise.identify(request)

    async def proves(self, request: Request) -> bool:
        """Return whether a resume token or the message itself authenticates the sender."""
        resume_token = _resume_token_of(request)
        if resume_token is not None:
            if await self._tenant_of(request, resume_token) is not None:
                return True
            if await self._replays.replay_of(resume_token, request.digest):
                return True
        return await self._otherwise.proves(request)

    async def _tenant_of(self, request: Request, resume_token: str) -> str | None:
        """The tenant in which the request was authenticated before; None where it was not."""
        if request.name is None:
            return None
        hashed = hash_of(resume_token)
        return await self._journal.authenticated_tenant(
            request.kind, request.name, request.digest, hashed
        )

    async def _replayed(self, request: Request, authority: ReplayAuthority) -> Requester:
        log.info(
            "request.replayed", message_id=request.envelope.message_id, operator=authority.operator
        )
        if authority.tenant is not None and request.operation != SOFT_DOWN:
            project_id = await project_of(self._cloud, authority.tenant, request.tenant)
            return Requester(project_id, operator=authority.operator)
        return replace(await self._trusted.identify(request), operator=authority.operator)


def _resume_token_of(request: Request) -> str | None:
    """The message's resume token. An access token that is there is verified, whatever else the
    message carries.
    """
    return request.envelope.resume_token if request.token in (None, MASK) else None
