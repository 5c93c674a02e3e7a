"""`ecs-worker check`: configuration, broker, journal, keys, cloud; a line each with advice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from urllib.parse import urlsplit

from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal, advice_of
from messages.errors import Transient
from messages.record import record
from messages.tls import is_cut_off
from workers.amqp.broker import explain
from workers.amqp.delivery_limit import has_delivery_limit, policy_command
from workers.amqp.topology import TopologyMismatch, compare, nodes_apart, topology, unusable
from workers.bootstrap import cloud_settings, own_region
from workers.cli.exits import Exit
from workers.cli.output import Format, Report, show
from workers.identity.jwks_source import KeySetError, is_url, key_source
from workers.journal import JournalError, JournalUnfit, SharedSessions
from workers.journal.database import (
    check_encoding,
    current_revision,
    exposed,
    head_revision,
    is_sqlite,
    open_engine,
    url_without_password,
)
from workers.journal.durability import weaknesses
from workers.journal.owners import check_owner
from workers.settings import ConfigurationError, Settings, load_settings

#: Seconds for one check.
_LIMIT = 30


#: What to do where a service ends a connection and says nothing.
_CUT_OFF = (
    "it ended the connection: where the port speaks TLS, its URL (auth_url in clouds.yaml, or the"
    " catalogue's) must begin with https:, and it may ask for a client certificate (cert and key in"
    " clouds.yaml); else see its log"
)


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


@record
class Finding:
    """One line. `advice` is empty where there is nothing to do."""

    check: str
    status: Status
    found: str
    advice: str = ""

    def row(self) -> dict[str, str]:
        """Return the line's fields."""
        return {
            "check": self.check,
            "result": self.status.value,
            "found": self.found,
            "advice": self.advice,
        }


def show_findings(findings: list[Finding], output: Format) -> None:
    """Print the findings; in a table with a line below for each that says what to do."""
    if output is not Format.TABLE or Report.is_wide:
        show([one.row() for one in findings], output)
        return
    report = Report()
    report.table(
        [
            {name: value for name, value in one.row().items() if name != "advice"}
            for one in findings
        ],
        keep=("result",),
    )
    for one in findings:
        if one.status is not Status.OK:
            report.line(f"{one.check}: {'; '.join(filter(None, (one.found, one.advice)))}")
        elif one.advice:
            report.line(f"{one.check}: {one.advice}")


Check = Callable[[Settings], AsyncIterator[Finding]]


def check_all() -> tuple[list[Finding], Exit]:
    """Return all findings, and the exit code that they amount to."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        advice = "see docs/reference/configuration.md"
        return [
            Finding("configuration", Status.FAILED, problem, advice) for problem in error.problems
        ], Exit.CONFIGURATION
    findings = asyncio.run(_check(settings))
    found = {one.status for one in findings}
    if Status.UNREACHABLE in found:
        return findings, Exit.UNREACHABLE
    return findings, Exit.CHECK_FAILED if Status.FAILED in found else Exit.OK


async def _check(settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    checks: dict[str, Check] = {
        "configuration": _configuration,
        "broker": _broker,
        "journal": _journal,
        "keys": _keys,
        "cloud": _cloud,
    }
    for name, check in checks.items():
        try:
            async with asyncio.timeout(_LIMIT):
                findings += [finding async for finding in check(settings)]
        except TimeoutError:
            found = f"no answer in {_LIMIT} s"
            findings.append(Finding(name, Status.UNREACHABLE, found, "check the network between"))
    return findings


async def _configuration(settings: Settings) -> AsyncIterator[Finding]:
    """The configuration in a line, URLs without their passwords; and the region."""
    journal = url_without_password(settings.journal_url.get_secret_value())
    cloud = settings.os_cloud or "(environment)"
    shown = f"broker {settings.broker.brokers}, journal {journal}, cloud {cloud}"
    yield Finding("configuration", Status.OK, shown)
    try:
        region = await asyncio.to_thread(own_region, settings)
    except ConfigurationError as error:
        advice = "set ECS_REGION, and region_name in clouds.yaml"
        yield Finding("region", Status.FAILED, str(error), advice)
    else:
        found = f"orders for {region} are carried out, all others refused"
        yield Finding("region", Status.OK, found)


async def _broker(settings: Settings) -> AsyncIterator[Finding]:
    brokers = settings.broker.brokers
    is_one = len(brokers.endpoints) == 1
    try:
        wanted = topology(settings.retry_delays, settings.names)
        version, missing = await asyncio.to_thread(compare, settings.broker, wanted)
    except TopologyMismatch as error:
        yield Finding("broker", Status.FAILED, "another topology", str(error))
        return
    except Exception as error:
        failed = [(str(brokers), error)]
        if not is_one:
            failed = await asyncio.to_thread(unusable, settings.broker) or failed
        for name, one in failed:
            cause = explain(one, settings.broker)
            status = Status.FAILED if cause.is_refused else Status.UNREACHABLE
            yield Finding("broker", status, f"{name}: {cause.reason}", cause.advice)
        return
    yield Finding("broker", Status.OK, f"RabbitMQ {version} at {brokers}")
    # The others of a cluster are needed when this one is away.
    for name, one in await asyncio.to_thread(unusable, settings.broker):
        cause = explain(one, settings.broker)
        found = f"{name}: {cause.reason}; the others are used"
        yield Finding("broker", Status.WARNING, found, cause.advice)
    async for finding in _nodes(settings):
        yield finding
    if missing:
        found = f"not declared yet: {', '.join(missing)}"
        advice = "the worker declares them at its start; or run: ecs-worker topology apply"
        yield Finding("topology", Status.WARNING, found, advice)
    else:
        yield Finding("topology", Status.OK, "declared")
    async for finding in _delivery_limit(settings):
        yield finding


async def _nodes(settings: Settings) -> AsyncIterator[Finding]:
    try:
        apart = await asyncio.to_thread(nodes_apart, settings.broker, settings.names)
    except Exception as error:  # as in `_broker`
        reason = explain(error, settings.broker).reason
        found = f"whether the nodes know each other could not be tried: {reason}"
        yield Finding("broker", Status.WARNING, found, "run ecs-worker check again")
        return
    if apart:
        found = f"{', '.join(apart)}: does not know the queues of the other nodes"
        advice = (
            "they are no cluster, or a partition has left them apart: see rabbitmqctl cluster_status"
            " on each node, and restart those that stay apart, one after the other"
        )
        yield Finding("broker", Status.FAILED, found, advice)


async def _delivery_limit(settings: Settings) -> AsyncIterator[Finding]:
    broker, names = settings.broker, settings.names
    try:
        is_limited = await asyncio.to_thread(has_delivery_limit, broker, names)
    except Exception as error:  # as in `_broker`: py-amqp raises whatever its socket does
        found = f"it could not be tried: {explain(error, broker).reason}"
        yield Finding("delivery limit", Status.WARNING, found, "run ecs-worker check again")
        return
    if is_limited:
        found = "RabbitMQ gives up on messages that were given back 20 times"
        advice = f"set a policy: {policy_command(broker, names)}"
        yield Finding("delivery limit", Status.WARNING, found, advice)


async def _journal(settings: Settings) -> AsyncIterator[Finding]:
    try:
        engine = open_engine(settings.journal_url.get_secret_value())
        await asyncio.to_thread(check_encoding, engine)
        weak = [] if is_sqlite(engine) else await asyncio.to_thread(weaknesses, engine)
        current = None
        if not (is_fatal := any(one.is_fatal for one in weak)):
            await asyncio.to_thread(check_owner, engine)
            current = await asyncio.to_thread(current_revision, engine)
        engine.dispose()
    except SharedSessions as error:
        yield Finding("journal", Status.FAILED, str(error), "see docs/operations/postgresql.md")
        return
    except JournalUnfit as error:
        advice = "create the journal's database anew, and set ECS_JOURNAL_URL"
        yield Finding("journal", Status.FAILED, str(error), advice)
        return
    except JournalError as error:
        status = Status.FAILED if error.advice else Status.UNREACHABLE
        advice = error.advice or "start the database, or set ECS_JOURNAL_URL"
        yield Finding("journal", status, error.reason, advice)
        return
    for one in weak:
        status = Status.FAILED if one.is_fatal else Status.WARNING
        yield Finding("journal", status, one.found, one.advice)
    if is_fatal:
        return
    found, head = f"{engine.dialect.name}, revision {current or 'none'}", head_revision()
    if current == head:
        yield Finding("journal", Status.OK, found)
    elif current is not None and current > head:
        newer = f"{found}: a later version has migrated it"
        yield Finding("journal", Status.OK, newer, "end the rolling update")
    else:
        advice = "the worker migrates it at its start"
        yield Finding("journal", Status.WARNING, f"{found}, {head} is needed", advice)
    for file in exposed(engine):
        advice = "chmod go-rwx; it names servers and customers"
        yield Finding("journal", Status.WARNING, file, advice)


async def _keys(settings: Settings) -> AsyncIterator[Finding]:
    if settings.jwt_jwks is None:
        names = settings.names
        guarded = f"{names.commands_exchange} and {names.orders_exchange}"
        advice = f"whoever may publish acts for every tenant: guard {guarded} by permissions"
        yield Finding("keys", Status.OK, "not needed: ECS_TRUST_PUBLISHERS=true", advice)
        return
    from workers.identity.jwks import usable_keys  # noqa: PLC0415 - loads cryptography

    source = key_source(settings.jwt_jwks)
    try:
        document = await asyncio.to_thread(source.read)
    except KeySetError as error:
        advice = "check ECS_JWT_JWKS and the network between; no token is accepted without the keys"
        yield Finding("keys", Status.UNREACHABLE, str(error), advice)
        return
    try:
        number = len(usable_keys(document))
    except KeySetError as error:
        path = "…/protocol/openid-connect/certs"
        advice = f"ECS_JWT_JWKS must name a JSON Web Key Set (of Keycloak: {path})"
        yield Finding("keys", Status.FAILED, f"{source.name}: {error}", advice)
        return
    found = f"{number} usable {'key' if number == 1 else 'keys'} at {source.name}"
    yield Finding("keys", Status.OK, found)
    is_local = urlsplit(source.name).hostname in ("127.0.0.1", "::1", "localhost")
    if is_url(source.name) and not source.name.startswith("https://") and not is_local:
        advice = "anybody on the network path can replace the keys; use https://"
        yield Finding("keys", Status.WARNING, "they come over http://", advice)
    if settings.jwt_issuer is None:
        advice = "tokens of every issuer that signs with these keys count; set ECS_JWT_ISSUER"
        yield Finding("keys", Status.WARNING, "no issuer is checked", advice)


async def _cloud(settings: Settings) -> AsyncIterator[Finding]:
    cloud = Cloud(cloud_settings(settings))
    try:
        async for finding in _service_account(cloud):
            yield finding
        if settings.admin_cloud is None:
            advice = (
                "without it: no owner of an instance is looked up, no server in ERROR is reset"
                " (ECS_ADMIN_CLOUD)"
            )
            yield Finding("admin cloud", Status.OK, "not configured", advice)
            return
        admin = await cloud.admin()
        found = f"{settings.admin_cloud}, project {admin.id}"
        yield Finding("admin cloud", Status.OK, found)
    except (Transient, CloudRefusal) as error:
        yield _unreached("admin cloud", error)
    finally:
        await cloud.close()


async def _service_account(cloud: Cloud) -> AsyncIterator[Finding]:
    try:
        projects = await cloud.list_projects()
        trouble = await cloud.account_trouble()
        missing = await cloud.missing_services() if trouble is None else ()
    except (Transient, CloudRefusal) as error:
        yield _unreached("keystone", error)
        return
    yield Finding("keystone", Status.OK, "the service account can log in")
    if trouble is not None:
        advice = (
            "it needs the role member in every tenant's project"
            " (an inherited role on their domain does it)"
        )
        yield Finding("rights", Status.FAILED, trouble, advice)
        return
    if missing:
        advice = "the service catalogue must list them; ask who runs the cloud"
        yield Finding("catalogue", Status.FAILED, f"missing: {', '.join(missing)}", advice)
    else:
        found = "compute, block storage, image and network are there"
        yield Finding("catalogue", Status.OK, found)
        async for finding in _versions(cloud):
            yield finding
        for name, silence in (await cloud.silent_services()).items():
            yield _unreached(name, silence)
    names = ", ".join(sorted(project.name for project in projects)[:10])
    yield Finding("rights", Status.OK, f"a role in {len(projects)} projects: {names}")


async def _versions(cloud: Cloud) -> AsyncIterator[Finding]:
    """Services that are too old, and extensions that are missing."""
    try:
        old, absent = await cloud.old_services(), await cloud.missing_extensions()
    except (Transient, CloudRefusal) as error:
        yield _unreached("extensions", error)
        return
    if old:
        advice = "nothing can be asked of it until it is upgraded; see docs/operations/running.md"
        yield Finding("microversions", Status.FAILED, "; ".join(old), advice)
    if absent:
        found = f"Neutron is without {', '.join(absent)}"
        advice = "what they add is null in views, and no order uses it"
        yield Finding("extensions", Status.OK, found, advice)


def _unreached(check: str, error: Transient | CloudRefusal) -> Finding:
    said = error.detail if isinstance(error, Transient) else str(error)
    text = " ".join(said.split())[:250]
    if advice := advice_of(error):
        return Finding(check, Status.FAILED, text, advice)
    is_refused = "401" in text or "Unauthorized" in text or error.reason == "cloud_configuration"
    status = Status.FAILED if is_refused else Status.UNREACHABLE
    if is_cut_off(text):
        return Finding(check, status, text, _CUT_OFF)
    advice = "check OS_CLOUD, OS_CLIENT_CONFIG_FILE and the account in clouds.yaml"
    return Finding(check, status, text, advice)
