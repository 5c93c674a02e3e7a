"""From a message's token to what it proves about who sent it."""

import time

from messages.errors import Transient
from workers.identity.key_set import REASON, Keys
from workers.identity.requester import NotProven
from workers.identity.token_cache import TokenCache
from workers.identity.tokens import (
    Claims,
    Expected,
    bare,
    is_over,
    is_too_early,
    read_header,
    verify,
)


class Expired(NotProven):
    """Raised for a token that is right but for its age; the text says which limit it has passed."""

    def __init__(self, claims: Claims, why: str) -> None:
        self.claims = claims
        super().__init__(why)


class TokenVerifier:
    """Verifies tokens with a key set; a token that comes with many messages, once."""

    def __init__(self, keys: Keys, expected: Expected) -> None:
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
        """What a token proves of the user's message that was published at this time (Unix seconds).

        `NotProven`, or `Expired`; `Transient` where the key set cannot be had, and might have the
        token's key. Where `rotated_since` (Unix seconds) is given, a set that is older than that
        proves no forgery by lacking a key: it is `Transient`, too.
        """
        claims = await self._claims(bare(token), rotated_since)
        if user_id is None or claims.subject != user_id:
            raise NotProven("the token is not that of the message's user")
        if is_too_early(claims, published):
            raise NotProven("the token did not count yet when the message was published")
        if is_over(claims, published):
            raise Expired(claims, "the token had expired when the message was published")
        # The publisher says when that was: without this bound an old token would count for as long
        # as a message may be old.
        if time.time() - claims.expires > self._expected.grace:
            raise Expired(claims, "the token expired too long ago (ECS_TOKEN_GRACE)")
        return claims

    async def _claims(self, token: str, rotated_since: float | None) -> Claims:
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
