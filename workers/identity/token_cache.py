"""Tokens that were verified: a console sends the same one with many messages, and a signature costs
most of all.
"""

import hashlib
import time
from collections import OrderedDict

from workers.identity.tokens import LEEWAY, Claims

#: Tokens that are remembered; the one used longest ago is forgotten for a new one.
MOST = 4096


class TokenCache:
    """What verified tokens say, by the SHA-256 of each: the tokens themselves are kept nowhere.

    They are forgotten when they expire, and all of them when the key set changes: a key may have
    been withdrawn.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._generation = 0
        self._known: OrderedDict[bytes, Claims] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, token: str, generation: int) -> Claims | None:
        """What a token says that was verified with the key set of this generation; None where it
        was not.
        """
        self._turn_to(generation)
        key = _key(token)
        claims = self._known.get(key)
        if claims is None:
            return None
        if claims.expires + LEEWAY < time.time():
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return claims

    def keep(self, token: str, generation: int, claims: Claims) -> None:
        """Remember a token that has just been verified."""
        self._turn_to(generation)
        if generation == self._generation and claims.expires + LEEWAY >= time.time():
            self._known[_key(token)] = claims
            if len(self._known) > self._most:
                self._known.popitem(last=False)

    def _turn_to(self, generation: int) -> None:
        if generation > self._generation:
            self._known.clear()
            self._generation = generation


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
