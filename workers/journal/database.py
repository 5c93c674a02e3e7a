"""The journal's database: opening it, and migrating its schema."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from messages.tls import TlsCause, tls_cause_of
from workers.journal.records import JournalError, JournalTimes, JournalUnfit
from workers.journal.sqlite import READS, exposed_files, sqlite_engine

#: PostgreSQL's advisory lock that is held during a migration; any number.
_MIGRATION_LOCK = 0x6563_7377
#: SQLSTATE of a prepared statement that the session does not know, and of one that it knows already.
_UNPREPARED, _PREPARED_TWICE = "26000", "42P05"
#: A URL up to its path, as SQLAlchemy reads it: a password may hold anything but an `@`.
_AUTHORITY = re.compile(r"(?P<before>\w+(?:\+\w+)?://(?:[^:/@]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*)")
#: Where an `@` may stand after the one before the host. Anywhere else it is a password's, and the
#: rest of that would be taken for a host or a database, and shown.
_OPTION = re.compile(r"[?&]\w+=[^/?&]*")
#: A host with or without its port; an IPv6 address stands in brackets.
_HOST = re.compile(r"(?:\[(?P<bracketed>[^\[\],@]+)\]|(?P<plain>[^\[\]:,@]+))(?::(?P<port>\d*))?")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%\w+)?")
#: What to do where TLS fails; all of it is set in the URL, as libpq names it.
TLS_ADVICE: dict[TlsCause, str] = {
    TlsCause.WRONG_NAME: (
        "ECS_JOURNAL_URL must name the database's host as its certificate does (or with"
        " sslmode=verify-ca the name is not compared)"
    ),
    TlsCause.EXPIRED: "the database needs another certificate, or a clock is wrong",
    TlsCause.UNKNOWN_CA: (
        "sslrootcert in ECS_JOURNAL_URL must name the file with the CA that signed the database's"
        " certificate; or that has expired"
    ),
    TlsCause.CERTIFICATE_NEEDED: (
        "the database asks for a client certificate: set sslcert and sslkey in ECS_JOURNAL_URL"
    ),
    TlsCause.CERTIFICATE_REFUSED: (
        "the database does not accept our certificate: check sslcert and sslkey in ECS_JOURNAL_URL"
        " (its CA must be in the database's ssl_ca_file, and its common name be the user)"
    ),
    TlsCause.NO_TLS: (
        "the database speaks no TLS: set ssl = on there, or take sslmode out of ECS_JOURNAL_URL"
    ),
    TlsCause.NEEDS_TLS: (
        "pg_hba.conf has no line for connections without TLS: set sslmode=verify-full and"
        " sslrootcert in ECS_JOURNAL_URL, and ssl = on in the database"
    ),
    TlsCause.OLD_TLS: (
        "database and worker have no version of TLS in common: see ssl_min_protocol_version of both"
    ),
    TlsCause.FILE: "check sslrootcert, sslcert and sslkey in ECS_JOURNAL_URL",
    TlsCause.OTHER: "see the database's log",
}
#: What a URL may not ask for.
_READ_ONLY = ("read-only", "standby", "prefer-standby")
_COUNTED = {"preserve_rowcount": True}

#: Parameters of a statement.
Row = tuple[Any, ...]


def open_engine(url: str, times: JournalTimes | None = None) -> Engine:
    """Return an engine for SQLite or PostgreSQL. Raises `JournalError`."""
    parsed = read_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise JournalError(
                "ECS_JOURNAL_URL names no file: a journal in memory would remember nothing"
            )
        return sqlite_engine(parsed)
    if parsed.get_backend_name() == "postgresql":
        from workers.journal.postgres import Connector  # noqa: PLC0415 - SQLite needs no driver

        connector = Connector(times or JournalTimes())

        # Set here, because the server's default may be another: statements must see what others
        # have committed meanwhile.
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            isolation_level="READ COMMITTED",
        )
        event.listen(
            engine,
            "do_connect",
            lambda _dialect, _record, _args, arguments: connector.connect(**arguments),
        )
        return engine
    raise JournalError("ECS_JOURNAL_URL must be of SQLite or PostgreSQL")


def execute_all(connection: Connection, statement: str, rows: Sequence[Row]) -> int:
    """Execute a statement, with a `?` for each parameter, for all rows by the driver's own
    `executemany`; return how many rows were written.
    """
    statement = _for_driver(connection, statement)
    return connection.exec_driver_sql(statement, list(rows), execution_options=_COUNTED).rowcount


def select_all(connection: Connection, statement: str, row: Row) -> CursorResult[Any]:
    """Execute a query, with a `?` for each parameter."""
    return connection.exec_driver_sql(_for_driver(connection, statement), row)


def _for_driver(connection: Connection, statement: str) -> str:
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")


def reading_engine(engine: Engine) -> Engine:
    """Return an engine for the same database that takes no lock."""
    return engine.execution_options(**{READS: True})


def read_url(url: str) -> URL:
    """Return the parts of a URL. Raises `JournalError`, which shows nothing of it.

    Several hosts stand in its query as `host` and `port`, whichever form they were given in:
    `//user@h1:5432,h2:5433/db`, `//user@/db?host=h1:5432&host=h2`, `?host=h1,h2&port=5432,5433`. Of
    them the one that can be written is meant, unless the URL says otherwise.
    """
    try:
        bare, hosts = _without_hosts(url)
        parsed = make_url(bare)
        if parsed.get_backend_name() == "postgresql":
            if "@" in _OPTION.sub("", url.partition("@")[2]):
                raise ValueError("a password holds an @")
            parsed = _with_hosts(parsed, hosts)
    except (
        ArgumentError,
        ValueError,
    ):  # the error quotes what it took for a port, which may be the password
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise JournalError(
            "ECS_JOURNAL_URL is no database URL, such as sqlite:///ecs-journal.db or "
            "postgresql://user:password@host1:5432,host2:5432/db; "
            "in a password write %40 for @, %3A for :, %2F for /"
        )
    if parsed.query.get("target_session_attrs") in _READ_ONLY:
        raise JournalError(
            "ECS_JOURNAL_URL has target_session_attrs for a standby, which cannot be written; "
            "it must be read-write (or primary)"
        )
    return parsed


def _without_hosts(url: str) -> tuple[str, list[str]]:
    """Return a URL with several hosts without them, and the hosts; SQLAlchemy takes one there."""
    found = _AUTHORITY.match(url)
    if found is None or "," not in (found["hosts"] or ""):
        return url, []
    return found["before"] + url[found.end() :], found["hosts"].split(",")


def _with_hosts(url: URL, hosts: list[str]) -> URL:
    if not hosts:
        given, ports = url.query.get("host", ()), url.query.get("port", ())
        is_one = isinstance(given, str) and not re.search("[,:]", given)
        hosts = given.split(",") if isinstance(given, str) else list(given)
        hosts = [] if is_one else hosts
        hosts = [f"[{one}]" if _BARE_IPV6.fullmatch(one) else one for one in hosts]
        numbers = ports.split(",") if isinstance(ports, str) else list(ports)
        if numbers and hosts:
            if len(numbers) == 1:
                numbers *= len(hosts)
            hosts = [f"{one}:{number}" for one, number in zip(hosts, numbers, strict=True)]
    if not hosts:
        return url
    parts = [_HOST.fullmatch(one) for one in hosts]
    if url.host or any(one is None for one in parts):
        raise ValueError("hosts are wrong")
    pairs = [(one["bracketed"] or one["plain"], int(one["port"] or 5432)) for one in parts if one]
    if not all(0 < port < 65536 for _, port in pairs):
        raise ValueError("a port is wrong")
    query = dict(url.query)
    if len(pairs) > 1:
        query.setdefault("target_session_attrs", "read-write")
    query["host"] = ",".join(host for host, _ in pairs)
    query["port"] = ",".join(str(port) for _, port in pairs)
    return url.set(port=None, query=query)


def url_without_password(url: str) -> str:
    """Return a URL that may be shown: also without its query, which may hold a password."""
    parsed = read_url(url)
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    hosts, ports = parsed.query.get("host"), parsed.query.get("port")
    if not isinstance(hosts, str) or not isinstance(ports, str):
        return shown
    pairs = zip(hosts.split(","), ports.split(","), strict=True)
    named = ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs
    )
    return _AUTHORITY.sub(lambda found: f"{found['before']}{named}", shown)


def is_sqlite(engine: Engine) -> bool:
    """Return whether the journal is a file of this machine."""
    return engine.dialect.name == "sqlite"


def check_encoding(engine: Engine) -> None:
    """Raise `JournalUnfit` unless the database stores every text.

    One with the encoding SQL_ASCII stores any bytes, and returns them as bytes; others refuse
    Chinese.
    """
    if is_sqlite(engine):
        return
    with reading_connection(engine) as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        shown = encoding.decode() if isinstance(encoding, bytes) else encoding
        raise JournalUnfit(
            f"the journal's database has the encoding {shown}; it must be UTF8 "
            "(createdb --template=template0 --encoding=UTF8 NAME)"
        )


def exposed(engine: Engine) -> list[str]:
    """Return a line for each file of an SQLite journal, and its folder, that others may use."""
    return exposed_files(Path(engine.url.database or "")) if is_sqlite(engine) else []


def migrate(engine: Engine) -> None:
    """Migrate the schema to this version; several workers may do so at once.

    A later version's schema is left as it is: a worker that is restarted in the middle of a rolling
    update goes on with it, as one that was not restarted does. Revisions are numbers of one length.
    """
    if (current_revision(engine) or "") >= head_revision():
        return
    # Ten megabytes for what is done once in a version's life.
    from alembic import command  # noqa: PLC0415

    with engine.begin() as connection:
        if not is_sqlite(engine):
            from workers.journal.postgres import lift_limits  # noqa: PLC0415

            lift_limits(connection)
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK}
            )
        command.upgrade(_config(connection), "head")


def current_revision(engine: Engine) -> str | None:
    """Return the revision of the schema, None where there is none. Changes nothing."""
    with reading_connection(engine) as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return str(found) if found is not None else None


def head_revision() -> str:
    """Return this version's revision: the number of the newest migration."""
    versions = Path(__file__).parent / "migrations" / "versions"
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))


@contextmanager
def reading_connection(engine: Engine) -> Iterator[Connection]:
    """Connect for reading. Raises `JournalError`."""
    try:
        with engine.connect() as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        raise journal_error("the journal cannot be opened", error) from None


def _config(connection: Connection) -> Any:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def reason_of(error: Exception) -> str:
    """Return the first line of what the database said, and what to do where TLS failed."""
    advice = tls_advice(error)
    return f"{_first_line(error)}; {advice}" if advice else _first_line(error)


def journal_error(what: str, error: Exception) -> JournalError:
    """Return the error that says why the journal cannot be used; `what` stands before the cause."""
    return JournalError(f"{what}: {_first_line(error)}", tls_advice(error))


def tls_advice(error: Exception) -> str:
    """Return what to do where the database refused TLS, or the lack of it; empty for any other
    error.
    """
    orig: Any = getattr(error, "orig", None)
    # An error of a connection, or of SQLSTATE 28000, "invalid authorization": what a statement's
    # values hold is no reason. SQLite's errors have no SQLSTATE.
    is_refusal = type(orig).__name__ == "OperationalError" and (
        getattr(orig, "sqlstate", "") in (None, "28000")
    )
    cause = tls_cause_of(_first_line(error)) if is_refusal else None
    return "" if cause is None else TLS_ADVICE[cause]


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def tells_shared_sessions(error: Exception) -> bool:
    """Return whether a statement that one session has prepared was executed in another one, which
    happens behind a pooler in transaction mode alone.
    """
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state in (_UNPREPARED, _PREPARED_TWICE)
