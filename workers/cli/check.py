"""`ecs-worker check`: configuration, broker, journal, cloud, a line each with what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from messages.errors import Transient
from workers.amqp.broker_errors import explain
from workers.amqp.topology import TopologyMismatch, compare, topology
from workers.bootstrap import cloud_settings, own_region
from workers.cli.exits import Exit
from workers.identity.jwks_source import KeySetError, is_url, key_source
from workers.journal import JournalError, JournalUnfit
from workers.journal.database import (
    check_encoding,
    current_revision,
    exposed,
    head_revision,
    open_engine,
    url_without_password,
)
from workers.settings import ConfigurationError, Settings, load_settings

_SECONDS = 30


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `advice` is empty where there is nothing to do."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def row(self) -> dict[str, str]:
        """The line's fields."""
        return {
            "check": self.check,
            "result": self.verdict.value,
            "found": self.found,
            "advice": self.advice,
        }


def check_all() -> tuple[list[Finding], Exit]:
    """Every finding, and the exit code that they amount to."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return [
            Finding("configuration", Verdict.FAILED, problem, "see docs/reference/configuration.md")
            for problem in error.problems
        ], Exit.CONFIGURATION
    findings = asyncio.run(_check(settings))
    if any(one.verdict is Verdict.UNREACHABLE for one in findings):
        return findings, Exit.UNREACHABLE
    return findings, Exit.CHECK_FAILED if any(
        one.verdict is Verdict.FAILED for one in findings
    ) else Exit.OK


async def _check(settings: Settings) -> list[Finding]:
    findings = [
        Finding("configuration", Verdict.OK, _shown(settings)),
        await asyncio.to_thread(_region, settings),
    ]
    for check in (_broker, _journal, _keys, _cloud):
        findings += await _guarded(check, settings)
    return findings


async def _guarded(
    check: Callable[[Settings], Awaitable[list[Finding]]], settings: Settings
) -> list[Finding]:
    name = check.__name__.strip("_")
    try:
        async with asyncio.timeout(_SECONDS):
            return await check(settings)
    except TimeoutError:
        return [
            Finding(
                name,
                Verdict.UNREACHABLE,
                f"no answer in {_SECONDS} s",
                "look at the network between",
            )
        ]


def _shown(settings: Settings) -> str:
    """The configuration in a line; URLs without their passwords."""
    journal = url_without_password(settings.journal_url.get_secret_value())
    return f"broker {settings.broker.endpoint}, journal {journal}, cloud {settings.os_cloud or '(environment)'}"


def _region(settings: Settings) -> Finding:
    try:
        region = own_region(settings)
    except ConfigurationError as error:
        return Finding(
            "region", Verdict.FAILED, str(error), "set ECS_REGION, and region_name in clouds.yaml"
        )
    return Finding("region", Verdict.OK, f"orders for {region} are carried out, all others refused")


async def _broker(settings: Settings) -> list[Finding]:
    shown = str(settings.broker.endpoint)
    try:
        wanted = topology(settings.retry_delays, settings.names)
        version, missing = await asyncio.to_thread(compare, settings.broker, wanted)
    except TopologyMismatch as error:
        return [Finding("broker", Verdict.FAILED, "another topology", str(error))]
    except Exception as error:
        told = explain(error, settings.broker)
        verdict = Verdict.FAILED if told.is_refused else Verdict.UNREACHABLE
        return [Finding("broker", verdict, f"{shown}: {told.reason}", told.advice)]
    findings = [Finding("broker", Verdict.OK, f"RabbitMQ {version} at {shown}")]
    if missing:
        findings.append(
            Finding(
                "topology",
                Verdict.WARNING,
                f"not declared yet: {', '.join(missing)}",
                "the worker declares them at its start; or run: ecs-worker topology apply",
            )
        )
    else:
        findings.append(Finding("topology", Verdict.OK, "declared"))
    return findings


async def _journal(settings: Settings) -> list[Finding]:
    try:
        engine = open_engine(settings.journal_url.get_secret_value())
        await asyncio.to_thread(check_encoding, engine)
        current = await asyncio.to_thread(current_revision, engine)
        engine.dispose()
    except JournalUnfit as error:
        return [
            Finding(
                "journal",
                Verdict.FAILED,
                str(error),
                "make the journal's database anew, and set ECS_JOURNAL_URL",
            )
        ]
    except JournalError as error:
        return [
            Finding(
                "journal",
                Verdict.UNREACHABLE,
                str(error),
                "start the database, or set ECS_JOURNAL_URL",
            )
        ]
    findings = [
        Finding("journal", Verdict.WARNING, one, "chmod go-rwx; it names servers and customers")
        for one in exposed(engine)
    ]
    if current == head_revision():
        return [
            Finding("journal", Verdict.OK, f"{engine.dialect.name}, revision {current}"),
            *findings,
        ]
    found = f"{engine.dialect.name}, revision {current or 'none'}, {head_revision()} is needed"
    return [
        Finding("journal", Verdict.WARNING, found, "the worker migrates it at its start"),
        *findings,
    ]


async def _keys(settings: Settings) -> list[Finding]:
    if settings.jwt_jwks is None:
        names = settings.names
        guarded = f"{names.commands_exchange} and {names.orders_exchange}"
        advice = f"whoever may publish acts for every tenant: guard {guarded} by permissions"
        return [Finding("keys", Verdict.OK, "not needed: ECS_TRUST_PUBLISHERS=true", advice)]
    from workers.identity.jwks import usable_keys  # noqa: PLC0415 - cryptography, where it is needed

    from_where = key_source(settings.jwt_jwks)
    source = from_where.name
    try:
        document = await asyncio.to_thread(from_where.read)
    except KeySetError as error:
        advice = "check ECS_JWT_JWKS and the network between; until it can be had nobody is let in"
        return [Finding("keys", Verdict.UNREACHABLE, str(error), advice)]
    try:
        usable = usable_keys(document)
    except KeySetError as error:
        advice = "ECS_JWT_JWKS must name a JSON Web Key Set (of Keycloak: …/protocol/openid-connect/certs)"
        return [Finding("keys", Verdict.FAILED, f"{source}: {error}", advice)]
    findings = [
        Finding(
            "keys", Verdict.OK, f"{len(usable)} usable {_plural('key', len(usable))} at {source}"
        )
    ]
    if is_url(source) and not source.startswith("https://") and not _is_local(source):
        advice = "whoever is on the way can put his own keys in; use https://"
        findings.append(Finding("keys", Verdict.WARNING, "they come over http://", advice))
    if settings.jwt_issuer is None:
        advice = "tokens of every issuer that signs with these keys count; set ECS_JWT_ISSUER"
        findings.append(Finding("keys", Verdict.WARNING, "no issuer is asked for", advice))
    return findings


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


async def _cloud(settings: Settings) -> list[Finding]:
    cloud = Cloud(cloud_settings(settings))
    try:
        return [*await _service_account(cloud), *await _admin(cloud, settings)]
    finally:
        await cloud.close()


async def _service_account(cloud: Cloud) -> list[Finding]:
    try:
        projects = await cloud.list_projects()
        if (trouble := await cloud.account_trouble()) is not None:
            advice = "it needs the role member in every tenant's project (an inherited role on their domain does it)"
            found = Finding("keystone", Verdict.OK, "the service account can log in")
            return [found, Finding("rights", Verdict.FAILED, trouble, advice)]
        missing = await cloud.missing_services()
    except (Transient, CloudRefusal) as error:
        return [_unreached("keystone", error)]
    findings = [Finding("keystone", Verdict.OK, "the service account can log in")]
    if missing:
        advice = "the service catalogue must list them; ask who runs the cloud"
        findings.append(
            Finding("catalogue", Verdict.FAILED, f"missing: {', '.join(missing)}", advice)
        )
    else:
        findings.append(
            Finding("catalogue", Verdict.OK, "compute, block storage, image and network are there")
        )
        findings += await _offers(cloud)
    names = ", ".join(sorted(project.name for project in projects)[:10])
    findings.append(Finding("rights", Verdict.OK, f"a role in {len(projects)} projects: {names}"))
    return findings


async def _offers(cloud: Cloud) -> list[Finding]:
    """Look for services that are too old, and for extensions that are missing."""
    try:
        old, absent = await cloud.old_services(), await cloud.missing_extensions()
    except (Transient, CloudRefusal) as error:
        return [_unreached("extensions", error)]
    findings = []
    if old:
        advice = "nothing can be asked of it until it is upgraded; see docs/operations/running.md"
        findings.append(Finding("microversions", Verdict.FAILED, "; ".join(old), advice))
    if absent:
        found = f"Neutron is without {', '.join(absent)}"
        advice = "what they add is null in views, and no order uses it"
        findings.append(Finding("extensions", Verdict.OK, found, advice))
    return findings


async def _admin(cloud: Cloud, settings: Settings) -> list[Finding]:
    if settings.admin_cloud is None:
        advice = "without it: no owner of an instance is looked up, no server in ERROR is reset (ECS_ADMIN_CLOUD)"
        return [Finding("admin cloud", Verdict.OK, "not configured", advice)]
    try:
        admin = await cloud.admin()
    except (Transient, CloudRefusal) as error:
        return [_unreached("admin cloud", error)]
    return [Finding("admin cloud", Verdict.OK, f"{settings.admin_cloud}, project {admin.id}")]


def _unreached(check: str, error: Any) -> Finding:
    text = " ".join(str(error).split())[:250]
    refused = "401" in text or "Unauthorized" in text
    configuration = getattr(error, "reason", "") == "cloud_configuration"
    verdict = Verdict.FAILED if refused or configuration else Verdict.UNREACHABLE
    advice = "check OS_CLOUD, OS_CLIENT_CONFIG_FILE and the account in clouds.yaml"
    return Finding(check, verdict, text, advice)
