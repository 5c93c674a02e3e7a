"""The command line: commands and groups, and what ends them."""

import asyncio
import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from messages.secrets import mask_text
from messages.texts import terminal_safe
from workers.cli.dead_letters import dead_app
from workers.cli.exits import (
    CommandFailed,
    Exit,
    gateway_settings_or_fail,
    need_sandbox,
    publisher_settings_or_fail,
    settings_or_fail,
    topology_settings_or_fail,
)
from workers.cli.output import Format, Output, complain, show
from workers.cli.times import parse_duration, parse_time

if TYPE_CHECKING:
    from workers.journal import Pausable, State

app = typer.Typer(
    name="ecs-worker",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Carries out server actions and paid orders from RabbitMQ on OpenStack.",
)
topology_app = typer.Typer(no_args_is_help=True, help="Exchanges and queues.")
app.add_typer(topology_app, name="topology")
journal_app = typer.Typer(no_args_is_help=True, help="Requests, with their effects and results.")
app.add_typer(journal_app, name="journal")
app.add_typer(dead_app, name="dead")

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"ecs-worker {version('ecs-worker')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@app.callback()
def options(context: typer.Context, verbose: Verbose = False, version: Version = False) -> None:
    """Carries out server actions and paid orders from RabbitMQ on OpenStack."""
    from workers.telemetry import configure_logs  # noqa: PLC0415

    # Only errors, of libraries too, are logged beside the data; `run` configures its own logs.
    configure_logs("console", "error")
    context.obj = verbose


@app.command()
def run() -> None:
    """Consume until SIGTERM or SIGINT, then drain and exit."""
    from workers.amqp.topology import TopologyMismatch  # noqa: PLC0415
    from workers.bootstrap import Worker  # noqa: PLC0415 - each command imports what it needs
    from workers.health import PortUnusable  # noqa: PLC0415
    from workers.journal import JournalError, JournalUnfit  # noqa: PLC0415
    from workers.settings import ConfigurationError  # noqa: PLC0415
    from workers.telemetry import configure_logs  # noqa: PLC0415

    settings = settings_or_fail()
    configure_logs(settings.log_format, settings.log_level)

    async def work() -> None:
        worker = Worker(settings)
        await worker.run()
        if worker.is_hung:
            # Python would wait for its threads, and so for a cloud or a database that hangs.
            os._exit(Exit.OK)

    try:
        asyncio.run(work())
    except PortUnusable as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error
    except TopologyMismatch as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except JournalUnfit as error:
        raise CommandFailed(Exit.REFUSED, f"ECS_JOURNAL_URL: {error}") from error
    except JournalError as error:
        text = str(error) if error.advice else f"{error}; check ECS_JOURNAL_URL"
        raise CommandFailed(Exit.UNREACHABLE, text) from error
    except ConfigurationError as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error


@app.command()
def gateway() -> None:
    """Serve the API document over HTTP, and the operations console under /console, until SIGTERM or
    SIGINT, then drain and exit.

    The console needs ECS_JOURNAL_URL. Operators log in with a token that has the role
    ECS_OPERATOR_ROLE; under ECS_TRUST_PUBLISHERS they come in from this machine alone, by an
    address that is printed here and works once.
    """
    from gateway.server import GatewayServer  # noqa: PLC0415
    from workers.health import PortUnusable  # noqa: PLC0415
    from workers.telemetry import configure_logs  # noqa: PLC0415

    settings = gateway_settings_or_fail()
    configure_logs(settings.log_format, settings.log_level)

    def announce(address: str) -> None:
        print(f"operations console, for one login from this machine: {address}", flush=True)

    async def serve() -> None:
        await GatewayServer(settings, announce).run()

    try:
        asyncio.run(serve())
    except PortUnusable as error:
        raise CommandFailed(Exit.CONFIGURATION, str(error)) from error


@app.command()
def check(output: Output = Format.TABLE) -> None:
    """Check the configuration, the broker, the journal and the cloud."""
    from workers.cli.check import check_all, show_findings  # noqa: PLC0415

    findings, code = check_all()
    show_findings(findings, output)
    raise typer.Exit(code)


@app.command()
def probe(
    what: Annotated[
        str, typer.Argument(help="live: its event loop runs; ready: it does its work.")
    ] = "live",
    *,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Ask the gateway, not the worker.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 2.0,
    output: Output = Format.TABLE,
) -> None:
    """Ask the worker or the gateway of this machine how it is, for health checks; exit code 0, 5
    where it says no, 4 where it gives no answer.
    """
    from workers.cli.probe import probe as ask  # noqa: PLC0415

    found = ask(what, gateway=gateway, timeout=timeout)
    if output is Format.TABLE:
        print(found.line(), flush=True)
    else:
        show([found._asdict()], output)
    raise typer.Exit(Exit.OK if found.ok else Exit.CHECK_FAILED)


@topology_app.command("show")
def topology_show(output: Output = Format.TABLE) -> None:
    """List the exchanges and queues that the worker declares."""
    from workers.amqp.topology import rows, topology  # noqa: PLC0415

    settings = topology_settings_or_fail()
    show(rows(topology(settings.retry_delays, settings.names)), output)


@topology_app.command("apply")
def topology_apply(output: Output = Format.TABLE) -> None:
    """Declare exchanges and queues; what is there already stays."""
    from workers.amqp.broker import explain  # noqa: PLC0415
    from workers.amqp.topology import TopologyMismatch, declare, rows, topology  # noqa: PLC0415

    settings = settings_or_fail()
    wanted = topology(settings.retry_delays, settings.names)
    try:
        declare(settings.broker, wanted)
    except TopologyMismatch as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except Exception as error:
        cause = explain(error, settings.broker)
        text = f"the broker cannot be reached: {cause.reason}; {cause.advice}"
        raise CommandFailed(Exit.UNREACHABLE, text) from error
    show(rows(wanted), output)


RequestState = Annotated[
    str | None, typer.Option("--state", metavar="STATE", help="running, done, settled.")
]
RequestOperation = Annotated[
    str | None,
    typer.Option("--operation", help="For instance server.action, order.changeConfigure."),
]
RequestTenant = Annotated[str | None, typer.Option("--tenant", help="A project's id.")]
ReceivedSince = Annotated[
    float | None,
    typer.Option("--since", parser=parse_time, metavar="TIME", help="Received since; 2h, 3d."),
]


@journal_app.command("list")
def journal_list(
    *,
    state: RequestState = None,
    operation: RequestOperation = None,
    tenant: RequestTenant = None,
    since: ReceivedSince = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """List requests, newest first."""
    from workers.cli.journal import list_requests  # noqa: PLC0415
    from workers.journal import RequestFilter  # noqa: PLC0415

    wanted = RequestFilter(_state(state), operation, tenant, since, limit)
    list_requests(settings_or_fail(), wanted, output)


def _state(word: str | None) -> "State | None":
    from workers.journal import State  # noqa: PLC0415

    if word is not None and word not in set(State):
        raise CommandFailed(Exit.USAGE, f"--state is one of {', '.join(State)}")
    return State(word) if word is not None else None


@journal_app.command("show")
def journal_show(
    key: Annotated[str, typer.Argument(help="message_id, orderId, flowId, or the whole key.")],
    file: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="A file that journal export has written."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a request's history: deliveries, effects, updates, result, replays."""
    if file is not None:
        from workers.cli.journal_export import show_exported  # noqa: PLC0415

        show_exported(file, key, output)
        return
    from workers.cli.journal import show_request  # noqa: PLC0415

    show_request(settings_or_fail(), key, output)


Kinds = Annotated[
    list[str], typer.Argument(metavar="KIND...", help="reads, servers, images, orders.")
]
Reason = Annotated[str | None, typer.Option(help="Why; it is kept on record.")]
Operator = Annotated[
    str | None, typer.Option(help="Who you are; the real user is kept on record beside it.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the workers obey.")]


def _kinds(words: list[str]) -> "tuple[Pausable, ...]":
    from workers.journal import Pausable  # noqa: PLC0415

    unknown = [word for word in words if word not in set(Pausable)]
    if unknown:
        text = f"there is no kind {', '.join(unknown)}: {', '.join(Pausable)}"
        raise CommandFailed(Exit.USAGE, text)
    return tuple(dict.fromkeys(Pausable(word) for word in words))


@app.command()
def pause(
    kinds: Kinds,
    *,
    reason: Reason = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", parser=parse_duration, metavar="TIME", help="Ends by itself after 30m, 2h, 1d."
        ),
    ] = None,
    operator: Operator = None,
    no_wait: NoWait = False,
    output: Output = Format.TABLE,
) -> None:
    """Pause kinds of requests for all workers; what has begun goes on, the rest waits in its queue.

    It holds until `ecs-worker resume`, or for as long as --for says. Prints all pauses in force.
    """
    from workers.cli.operators import Order, pause_kinds  # noqa: PLC0415

    order = Order(_kinds(kinds), reason, operator, not no_wait)
    raise typer.Exit(pause_kinds(settings_or_fail(), order, seconds, output))


@app.command()
def resume(
    kinds: Kinds,
    *,
    reason: Reason = None,
    operator: Operator = None,
    no_wait: NoWait = False,
    output: Output = Format.TABLE,
) -> None:
    """Go on with kinds of requests that were paused; prints who had paused them, and why."""
    from workers.cli.operators import Order, resume_kinds  # noqa: PLC0415

    order = Order(_kinds(kinds), reason, operator, not no_wait)
    raise typer.Exit(resume_kinds(settings_or_fail(), order, output))


@app.command()
def cancel(
    key: Annotated[str, typer.Argument(help="An orderId, a flowId, or the journal's whole key.")],
    *,
    tenant: Annotated[
        str | None,
        typer.Option(help="A project (id or name), where several have an order of that name."),
    ] = None,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back the cancellation of an order to come.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: Reason = None,
    operator: Operator = None,
    output: Output = Format.TABLE,
) -> None:
    """Cancel an order of which nothing has begun; exit code 7 if something has.

    A worker answers it as failed (101.001040, cancelled) when its message comes. An order that no
    worker has had yet is cancelled when it comes.
    """
    from workers.cli.operators import (  # noqa: PLC0415
        CancelCommand,
        cancel_order,
        withdraw_cancellation,
    )

    command = CancelCommand(key, tenant, reason, operator, yes)
    carry_out = withdraw_cancellation if withdraw else cancel_order
    raise typer.Exit(carry_out(settings_or_fail(), command, output))


@app.command()
def audit(
    *,
    since: Annotated[
        float | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Done since; 2h, 3d."),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="For instance pause, cancel, dead replay.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="A name as it was given, or a real user.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="An orderId, flowId, message_id, batch or kind.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    output: Output = Format.TABLE,
) -> None:
    """Show what operators did: who, what, why, and from where; newest first."""
    from workers.cli.operators import list_audit  # noqa: PLC0415
    from workers.journal import AuditFilter  # noqa: PLC0415

    list_audit(settings_or_fail(), AuditFilter(since, action, operator, key, limit), output)


@journal_app.command("export")
def journal_export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file; with .gz compressed; - for stdout.")
    ],
    *,
    state: RequestState = None,
    operation: RequestOperation = None,
    tenant: RequestTenant = None,
    since: ReceivedSince = None,
    before: Annotated[
        float | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Received before; 2026-01-31, 90d."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    operator: Operator = None,
    output: Output = Format.TABLE,
) -> None:
    """Write all requests, or some, to a file, a JSON object a line, oldest first.

    The lines are as journal show -o json prints a request, without secrets, all of one instant; workers
    go on. For analysis, for an audit, and to be kept before a prune: journal show KEY --from FILE reads
    it. It is no backup, from which a journal could be restored.
    """
    from workers.cli.journal_export import Export, export_requests  # noqa: PLC0415
    from workers.journal import RequestFilter  # noqa: PLC0415

    wanted = RequestFilter(_state(state), operation, tenant, since, before=before)
    export_requests(settings_or_fail(), Export(file, force, operator), wanted, output)


@journal_app.command("prune")
def journal_prune(
    *,
    before: Annotated[
        float,
        typer.Option(
            "--before",
            "--older-than",
            parser=parse_time,
            metavar="TIME",
            help="Orders that were settled before; 2026-01-31, or so long ago: 400d.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how many orders, and how much space.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum",
            help="Then have the database use the space: an SQLite file becomes smaller, and workers wait"
            " meanwhile; PostgreSQL uses it for new requests.",
        ),
    ] = False,
    operator: Operator = None,
    output: Output = Format.TABLE,
) -> None:
    """Delete old orders but for key, digest and outcome; asks first.

    A repeat of a pruned order still gets its outcome, and is never carried out again. Workers go on
    meanwhile. ECS_ORDERS_KEPT has workers do the same by themselves.
    """
    from workers.cli.journal_prune import Pruning, prune_orders  # noqa: PLC0415

    pruning = Pruning(before, yes, dry_run, vacuum, operator)
    raise typer.Exit(prune_orders(settings_or_fail(), pruning, output))


@app.command()
def plan(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file with an order message; - for stdin.")
    ],
    tenant: Annotated[
        str | None, typer.Option(help="The project it acts in, where the order does not say.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Preview an order, and change nothing; exit code 5 if it would be refused."""
    from workers.cli.plan import plan_file  # noqa: PLC0415

    raise typer.Exit(plan_file(settings_or_fail(), file, tenant, output))


@app.command()
def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.5, help="Seconds between two, with --watch.")
    ] = 2.0,
    max_ready: Annotated[
        list[str] | None,
        typer.Option(metavar="[QUEUE=]N", help="Messages that may be ready; repeatable."),
    ] = None,
    max_age: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[QUEUE=]TIME", help="Age of the oldest message: 90s, 5m, 2h; repeatable."
        ),
    ] = None,
    max_request_age: Annotated[
        str | None, typer.Option(metavar="TIME", help="Age of the oldest unfinished request.")
    ] = None,
    max_dead: Annotated[int | None, typer.Option(min=0, help="Dead letters that may be.")] = None,
    min_workers: Annotated[
        int | None, typer.Option(min=0, help="Workers that must be alive.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show queues, workers, unfinished requests, dead letters, pauses, and what stands still.

    Without QUEUE a limit holds for each queue of requests. Exit code 5: beyond a limit.

    Exit code 4: broker or journal cannot be reached; what can be known is shown all the same.
    """
    from workers.admin.limits import Limits  # noqa: PLC0415
    from workers.cli.status import parse_limits, queue_names, show_status  # noqa: PLC0415

    settings = settings_or_fail()
    names = queue_names(settings)
    ready = parse_limits(max_ready or (), "--max-ready", names)
    age = parse_limits([max_request_age] if max_request_age else (), "--max-age", names)
    limits = Limits(
        {queue: int(most) for queue, most in ready.items()},
        parse_limits(max_age or (), "--max-age", names),
        max_dead,
        min_workers,
        age.get(""),
    )
    raise typer.Exit(show_status(settings, limits, interval if watch else None, output))


@app.command("show")
def show_one(
    key: Annotated[str, typer.Argument(help="message_id, orderId, flowId, or the whole key.")],
    output: Output = Format.TABLE,
) -> None:
    """Show everything about one request, wherever it is: journal, queues, dead letters, workers.

    Where it is, why, when it goes on, and its timeline. Exit code 5: nobody knows it.

    What the journal does not know is looked for in the queues, a few times at most.
    """
    from workers.cli.status import show_everywhere  # noqa: PLC0415

    raise typer.Exit(show_everywhere(settings_or_fail(), key, output))


Tenant = Annotated[str | None, typer.Option(help="A project's id or name, where no token says it.")]
TokenFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A file with the token; else ECS_TOKEN.")
]
Timeout = Annotated[float | None, typer.Option(min=0.1, help="Seconds to wait for the end.")]


@app.command()
def call(
    operation: Annotated[str, typer.Argument(help="For instance server.list, server.action.")],
    *,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter; repeatable."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(help="The body of the API: JSON, a file, or - for stdin (order.plan: order)."),
    ] = None,
    tenant: Tenant = None,
    user: Annotated[str | None, typer.Option(help="The user's id.")] = None,
    token_file: TokenFile = None,
    message_id: Annotated[
        str | None, typer.Option(help="The idempotency key; a new one without it.")
    ] = None,
    timeout: Timeout = None,
    output: Output = Format.TABLE,
) -> None:
    """Publish a command and print its answer; exit code 5 if it is a failure."""
    from workers.cli.call import Sender, fields_of  # noqa: PLC0415
    from workers.cli.call import call as publish  # noqa: PLC0415

    code = publish(
        publisher_settings_or_fail(),
        operation,
        fields_of(operation, parameters or [], body),
        Sender(tenant, user, token_file),
        message_id=message_id,
        timeout=timeout,
        output=output,
    )
    raise typer.Exit(code)


@app.command()
def order(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file with an order message; - for stdin.")
    ],
    *,
    tenant: Tenant = None,
    token_file: TokenFile = None,
    timeout: Timeout = None,
    output: Output = Format.TABLE,
) -> None:
    """Publish an order, print its updates to stderr and its result; exit code 5 if it fails."""
    from workers.cli.call import Sender  # noqa: PLC0415
    from workers.cli.call import order as publish  # noqa: PLC0415

    sender = Sender(tenant, None, token_file)
    settings = publisher_settings_or_fail()
    raise typer.Exit(publish(settings, file, sender, timeout=timeout, output=output))


@app.command()
def demo(
    *,
    openstack: Annotated[
        str, typer.Option(help="simulated, or real: Keystone, Nova and the others.")
    ] = "simulated",
    stay_running: Annotated[
        bool, typer.Option("--stay", help="Keep it running until Ctrl-C, to be tried out.")
    ] = False,
) -> None:
    """Run everything on this machine for half a minute and show what happens."""
    need_sandbox()
    from sandbox.processes import SandboxError  # noqa: PLC0415
    from workers.demo.scenarios import run_demo  # noqa: PLC0415
    from workers.demo.stay import stay  # noqa: PLC0415

    if openstack not in ("simulated", "real"):
        raise CommandFailed(Exit.USAGE, "--openstack is simulated or real")
    held = True
    try:
        if stay_running:
            stay(openstack)
        else:
            held = run_demo(openstack)
    except SandboxError as error:
        raise CommandFailed(Exit.UNREACHABLE, str(error)) from error
    except TimeoutError as error:
        text = f"the demo did not see what it should: {error}"
        raise CommandFailed(Exit.CHECK_FAILED, text) from error
    raise typer.Exit(Exit.OK if held else Exit.CHECK_FAILED)


@app.command("simulated-openstack")
def simulated_openstack(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port of 127.0.0.1 that it listens on.")
    ] = 5000,
    region: Annotated[str, typer.Option(help="Its region.")] = "RegionOne",
    pace: Annotated[
        float, typer.Option(min=0, help="Stretches what takes time; 0.1: ten times as fast.")
    ] = 1.0,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="JSON", help="A fault from the start; repeatable.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Run the simulated OpenStack until SIGTERM or SIGINT; prints where its clouds.yaml is."""
    need_sandbox()
    from workers.cli.simulated_openstack import serve  # noqa: PLC0415

    serve(port, region, pace, fault or (), output)


@app.command()
def asyncapi(output: Output = Format.TABLE) -> None:
    """Print the wire contract as an AsyncAPI 3 document: YAML, or JSON with -o json or jsonl."""
    from workers.asyncapi import document  # noqa: PLC0415
    from workers.cli.output import show_document  # noqa: PLC0415

    show_document(document(topology_settings_or_fail().names), output)


def run_app() -> None:
    """Run the command line, and exit. An error is one line on stderr; `-v` adds the traceback."""
    verbose = "-v" in sys.argv[1:] or "--verbose" in sys.argv[1:]
    try:
        code = app(standalone_mode=False, prog_name="ecs-worker")
        sys.exit(code if isinstance(code, int) else Exit.OK)
    except TyperException as error:
        # Without a text the help was shown instead.
        if text := error.format_message():
            context: typer.Context | None = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "ecs-worker"
            end = " See" if text.endswith("?") else "; see"
            complain(f"{text.rstrip('.')}{end} {path} --help")
        sys.exit(Exit.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if verbose:
            complain(mask_text(traceback.format_exc().rstrip()))
        if isinstance(error, CommandFailed):
            complain(str(error))
            sys.exit(error.code)
        text = mask_text(f"unexpected {type(error).__name__}: {error} (-v shows where)")
        complain(terminal_safe(text))
        sys.exit(Exit.UNEXPECTED)
