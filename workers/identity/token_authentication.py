"""Authentication by access tokens: each message proves its sender and its project."""

import hashlib
import time

from cachetools import TLRUCache

from handlers.openstack.cloud import Cloud
from handlers.openstack.keystone import TenantIs
from messages.errors import Transient
from workers.amqp.envelope import Envelope
from workers.identity.jwt import (
    LEEWAY,
    Claims,
    Expected,
    Expired,
    bare,
    check_times,
    read_header,
    verify,
)
from workers.identity.key_set import REASON, KeySet
from workers.identity.requester import (
    SOFT_DOWN,
    NotProven,
    Requester,
    may_omit_token,
    project_of,
)
from workers.identity.trusted import TrustedPublishers
from workers.journal import Journal, Kind
from workers.request import Request


class TokenAuthentication:
    """Demands an access token, except of softDown, which only `tokenless` AMQP users may send.

    `tenant_is` says whether the tenant's claim is an id or a name; None: either.
    """

    def __init__(
        self,
        verifier: "TokenVerifier",
        cloud: Cloud,
        journal: Journal,
        tokenless: frozenset[str],
        tenant_is: TenantIs | None = None,
    ) -> None:
        self._verifier = verifier
        self._cloud = cloud
        self._journal = journal
        self._tokenless = tokenless
        self._tenant_is = tenant_is
        self._trusted = TrustedPublishers(cloud, journal)

    async def identify(self, request: Request) -> Requester:
        envelope = request.envelope
        if request.operation == SOFT_DOWN:
            if not may_omit_token(envelope, self._tokenless):
                raise NotProven(
                    "softDown is taken from the publishers in ECS_TOKENLESS_PUBLISHERS alone"
                )
            return await self._trusted.identify(request)
        # A command with an unknown key id is rejected at once: otherwise anybody could fill its
        # queue with made-up key ids, and its sender can send it again. An order waits for a key set
        # that is newer than it.
        rotated_since = envelope.arrived if request.kind is Kind.ORDER else None
        try:
            claims = await self._verifier.verify(
                request.token, request.user_id, published_at(envelope), rotated_since
            )
        except Expired as expired:
            project_id = await self._project_of(expired.claims, request)
            key = request.key(project_id)
            # The token was valid when the request first came, if the request was begun then.
            known = await self._journal.find(key) if key is not None else []
            if not any(one.key == key and one.digest == request.digest for one in known):
                raise
            return Requester(project_id)
        return Requester(await self._project_of(claims, request))

    async def proves(self, request: Request) -> bool:
        """Return whether the token is that of the message's user, or none is needed."""
        envelope = request.envelope
        if request.operation == SOFT_DOWN:
            return may_omit_token(envelope, self._tokenless)
        try:
            await self._verifier.verify(request.token, request.user_id, published_at(envelope))
        except Expired:
            known = await self._journal.find(request.name or "")
            return any(map(request.is_same_as, known))
        except NotProven:
            return False
        return True

    async def _project_of(self, claims: Claims, request: Request) -> str:
        return await project_of(self._cloud, claims.tenant, request.tenant, self._tenant_is)


def published_at(envelope: Envelope) -> float:
    """Return when the message was published, in Unix seconds; a time in the future, or none, counts
    as the arrival.
    """
    return (
        min(float(envelope.timestamp), envelope.arrived) if envelope.timestamp else envelope.arrived
    )


class TokenVerifier:
    """Verifies tokens with a key set; a token that comes with many messages, once."""

    def __init__(self, keys: KeySet, expected: Expected) -> None:
        self._keys = keys
        self._expected = expected
        self._verified = TokenCache()

    async def verify(
        self,
        token: str | None,
        user_id: str | None,
        published: float,
        rotated_since: float | None = None,
    ) -> Claims:
        """Return the claims of the user's token, which must be valid at the time of publishing
        (Unix seconds).

        Raises `NotProven`, or `Expired`; `Transient` where the key set cannot be fetched and might
        have the token's key. Where `rotated_since` (Unix seconds) is given and the key set is
        older, a missing key proves no forgery, and is `Transient`, too.
        """
        claims = await self.claims_of(token, rotated_since)
        if user_id is None or claims.subject != user_id:
            raise NotProven("the token is not that of the message's user")
        check_times(claims, published)
        # The publisher says when that was: without this limit an old token would be accepted for as
        # long as a message may be old.
        if time.time() - claims.expires > self._expected.grace:
            raise Expired(claims, "the token expired too long ago (ECS_TOKEN_GRACE)")
        return claims

    async def claims_of(self, given: str | None, rotated_since: float | None = None) -> Claims:
        """Return the claims of a token, whoever sends it; its times are not compared.

        Raises as `verify` does, but for `Expired`.
        """
        token = bare(given)
        await self._keys.renew_when_old()
        known = self._verified.find(token, self._keys.generation)
        if known is not None:
            return known
        header = read_header(token)
        keys = await self._keys.find(header.kid, header.algorithm)
        if not keys and rotated_since is not None and self._keys.fetched_at < rotated_since:
            raise Transient(
                REASON, detail="the key may be a new one", retry_after=self._keys.next_look()
            )
        claims = verify(token, header, keys, self._expected)
        self._verified.keep(token, self._keys.generation, claims)
        return claims


class TokenCache:
    """Claims of verified tokens by the SHA-256 of each token; no token itself is kept.

    An entry lives until its token expires, all of them until the key set changes, for a key may
    have been withdrawn. Past `maxsize` the entry used longest ago is dropped.
    """

    def __init__(self, maxsize: int = 4096) -> None:
        self._generation = 0
        self._claims: TLRUCache[bytes, Claims] = TLRUCache(
            maxsize, ttu=lambda _key, claims, _now: claims.expires + LEEWAY, timer=time.time
        )

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, token: str, generation: int) -> Claims | None:
        """Return the claims of a token that was verified with this generation of the key set."""
        self._advance(generation)
        found: Claims | None = self._claims.get(_digest(token))
        return found

    def keep(self, token: str, generation: int, claims: Claims) -> None:
        """Remember a token that has just been verified."""
        self._advance(generation)
        if generation == self._generation:
            self._claims[_digest(token)] = claims

    def _advance(self, generation: int) -> None:
        if generation > self._generation:
            self._claims.clear()
            self._generation = generation


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
