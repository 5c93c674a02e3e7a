"""The caller: known by the token of `Authorization`, or by `X-Tenant-Id` where publishers are trusted.

A worker decides who may do what. The gateway turns away what is surely not proven, so that it costs
no worker anything, counts each tenant's requests, and shows updates to their tenant alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import field
from typing import Any, Protocol, TypeVar

from starlette.datastructures import Headers

from gateway.failures import HttpFailure, broker_away, failure_of, parameter
from handlers.openstack.cloud import Cloud
from handlers.openstack.keystone import TenantIs
from messages.errors import Refused, Transient
from messages.fields import read, word
from messages.orders.order import is_soft_down
from messages.record import record
from workers.identity.jwt import LEEWAY, Claims, Expired, check_times, unverified_subject
from workers.identity.requester import NotProven, project_of
from workers.identity.token_authentication import TokenVerifier

T = TypeVar("T")
#: Whose share of the places it is where nobody can tell the tenant.
UNPROVEN = "?"
TENANT, USER = "X-Tenant-Id", "X-User-Id"
#: Seconds for the cloud to tell that an order's tenant has no project.
_ASKED_WITHIN = 2.0


@record
class Caller:
    """The sender of a request. `fields` are those of the command that say who it is."""

    tenant: str
    fields: Mapping[str, str] = field(repr=False)
    #: Unix seconds from which a stream of updates must be asked for anew; None: never.
    until: float | None = None


class Callers(Protocol):
    """The interface by which a request's sender is identified."""

    async def identify(self, headers: Headers) -> Caller:
        """Return the sender of a command. Raises `HttpFailure` for one that no worker would take."""

    async def prove(self, headers: Headers) -> tuple[Caller, str]:
        """Return a sender who is proven here and now, and the id of the project."""

    async def share(self, headers: Headers) -> str:
        """Return whose share an order takes, before it is read: it may have a token of its own."""

    async def sign(self, order: dict[str, Any], headers: Headers) -> Caller:
        """Complete an order by who sends it. Raises `HttpFailure` where that is not proven."""


class TrustedCallers:
    """Trusts the headers. `cloud` tells the ids of projects; None: the tenant is an id."""

    def __init__(self, cloud: Cloud | None) -> None:
        self._cloud = cloud

    async def identify(self, headers: Headers) -> Caller:
        tenant = _named(headers, TENANT)
        user = _named(headers, USER) if headers.get(USER) else None
        fields = {"tenant_id": tenant} | ({"user_id": user} if user is not None else {})
        return Caller(tenant, fields)

    async def prove(self, headers: Headers) -> tuple[Caller, str]:
        caller = await self.identify(headers)
        if self._cloud is None:
            return caller, caller.tenant
        return caller, (await _asked(self._cloud.find_project(caller.tenant))).id

    async def share(self, headers: Headers) -> str:
        return (await self.identify(headers)).tenant

    async def sign(self, order: dict[str, Any], headers: Headers) -> Caller:
        caller = await self.identify(headers)
        claimed = order.get("tenant_id")
        if claimed is None:
            order["tenant_id"] = caller.tenant
        elif isinstance(claimed, str) and claimed != caller.tenant:
            # Whoever sets the header need not have read the body.
            if self._cloud is None:
                raise failure_of(NotProven("the order's tenant_id is another"))
            await _asked(project_of(self._cloud, caller.tenant, claimed))
            return caller
        await _must_exist(self._cloud, caller.tenant)
        return caller


class TokenCallers:
    """Demands a token. `cloud` tells the ids of projects; None: the tenant's claim is an id."""

    def __init__(
        self, verifier: TokenVerifier, cloud: Cloud | None, tenant_is: TenantIs | None
    ) -> None:
        self._verifier = verifier
        self._cloud = cloud
        self._tenant_is = tenant_is

    async def identify(self, headers: Headers) -> Caller:
        token = _single(headers, "Authorization")
        try:
            claims = await self._verifier.claims_of(token)
            check_times(claims, time.time())
        except Expired as expired:
            # A worker knows whether the request was begun while the token counted.
            claims = expired.claims
        except NotProven as refused:
            raise failure_of(refused) from None
        except Transient:
            # The workers may have the key set that cannot be fetched here.
            return _unproven(token)
        return Caller(claims.tenant, _fields(token, claims.subject), claims.expires + LEEWAY)

    async def prove(self, headers: Headers) -> tuple[Caller, str]:
        token = _single(headers, "Authorization")
        claims = await self._proven(token)
        until = claims.expires + LEEWAY
        caller = Caller(claims.tenant, _fields(token, claims.subject), until)
        if self._cloud is not None:
            found = project_of(self._cloud, claims.tenant, None, self._tenant_is)
            return caller, await _asked(found)
        if self._tenant_is is not TenantIs.ID:
            # A tenant could name its project by another's id.
            raise HttpFailure(503, reason="tenant_unknown", retry_after=60)
        return caller, claims.tenant

    async def share(self, headers: Headers) -> str:
        return (await self.identify(headers)).tenant if "authorization" in headers else UNPROVEN

    async def sign(self, order: dict[str, Any], headers: Headers) -> Caller:
        # A softDown has no token: it is taken from publishers that the broker knows.
        if not order.get("token") and not is_soft_down(order):
            order["token"] = _single(headers, "Authorization")
        given = order.get("token")
        token = given if isinstance(given, str) else None
        claims = await self._proven(token)
        if claims.subject != order.get("userId"):
            raise failure_of(NotProven("the token is not that of the order's user"))
        await _must_exist(self._cloud, claims.tenant, self._tenant_is)
        return Caller(claims.tenant, {}, claims.expires + LEEWAY)

    async def _proven(self, token: str | None) -> Claims:
        try:
            claims = await self._verifier.claims_of(token)
            check_times(claims, time.time())
        except NotProven as refused:
            raise failure_of(refused) from None
        except Transient:
            raise broker_away("keys") from None
        return claims


def _single(headers: Headers, name: str) -> str | None:
    """Return a header. Raises `HttpFailure` where there are two: a proxy may have added its own to
    what somebody has made up.
    """
    given = set(headers.getlist(name))
    if len(given) > 1:
        raise parameter(name)
    return given.pop() if given else None


def _named(headers: Headers, name: str) -> str:
    try:
        # ASGI's headers are bytes, which are read as latin-1; people write UTF-8.
        value = (_single(headers, name) or "").encode("latin-1").decode()
        return read(word, value, name)
    except UnicodeDecodeError:
        raise parameter(name) from None
    except Refused as refused:
        raise failure_of(refused) from None


def _fields(token: str | None, subject: str) -> dict[str, str]:
    return {"token": token or "", "user_id": subject}


def _unproven(token: str | None) -> Caller:
    try:
        return Caller(UNPROVEN, _fields(token, unverified_subject(token)))
    except NotProven as refused:
        raise failure_of(refused) from None


async def _must_exist(cloud: Cloud | None, tenant: str, written: TenantIs | None = None) -> None:
    """Refuse an order whose tenant surely has no project that the workers could act in.

    Where the cloud does not tell in time, the order is taken: workers wait for the cloud.
    """
    if cloud is None:
        return
    try:
        async with asyncio.timeout(_ASKED_WITHIN):
            await cloud.find_project(tenant, written)
    except Refused as refused:
        raise failure_of(refused) from None
    except (Transient, TimeoutError):
        return


async def _asked(cloud: Awaitable[T]) -> T:
    """Return what the cloud says of a project."""
    try:
        return await cloud
    except Refused as refused:
        raise failure_of(refused) from None
    except Transient:
        raise broker_away("keystone") from None
