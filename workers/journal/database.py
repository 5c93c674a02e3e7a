"""The database behind the journal: how it is opened, and its schema brought up to date."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from workers.journal.records import JournalError, JournalUnfit
from workers.journal.sqlite import READS, exposed_files, sqlite_engine

#: Any number; whoever migrates holds this advisory lock of PostgreSQL.
_MIGRATION_LOCK = 0x6563_7377


def open_engine(url: str) -> Engine:
    """An engine for SQLite in WAL mode, every commit on the disk, or for PostgreSQL."""
    parsed = read_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise JournalError(
                "ECS_JOURNAL_URL names no file: a journal in memory would remember nothing"
            )
        return sqlite_engine(parsed)
    if parsed.get_backend_name() == "postgresql":
        from workers.journal.postgres import connect  # noqa: PLC0415 - who uses SQLite needs no driver

        # Said, because the server's own default may be another: what is written follows what others
        # have committed.
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            isolation_level="READ COMMITTED",
        )
        event.listen(
            engine, "do_connect", lambda _dialect, _record, _args, arguments: connect(**arguments)
        )
        return engine
    raise JournalError("ECS_JOURNAL_URL must be of SQLite or PostgreSQL")


def reading_engine(engine: Engine) -> Engine:
    """The same database, only to be read."""
    return engine.execution_options(**{READS: True})


def read_url(url: str) -> URL:
    """The URL in its parts; `JournalError`, which shows nothing of it, where it cannot be told what
    is what.
    """
    try:
        parsed = make_url(url)
    except (
        ArgumentError,
        ValueError,
    ):  # the error quotes what it took for a port, which may be the password
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise JournalError(
            "ECS_JOURNAL_URL is no database URL, such as sqlite:///ecs-journal.db; "
            "in a password write %40 for @, %3A for :, %2F for /"
        )
    return parsed


def url_without_password(url: str) -> str:
    """The URL as it may be shown: without what comes after `?`, too, where a password may be as
    well.
    """
    return read_url(url).set(query={}).render_as_string(hide_password=True)


def is_sqlite(engine: Engine) -> bool:
    """Whether the journal is a file of this machine."""
    return engine.dialect.name == "sqlite"


def check_encoding(engine: Engine) -> None:
    """`JournalUnfit` unless the database holds every text.

    One of encoding SQL_ASCII takes any bytes, and gives them back as bytes; others refuse the
    contract's Chinese.
    """
    if is_sqlite(engine):
        return
    with _reading(engine) as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        shown = encoding.decode() if isinstance(encoding, bytes) else encoding
        raise JournalUnfit(
            f"the journal's database has the encoding {shown}; it must be UTF8 "
            "(createdb --template=template0 --encoding=UTF8 NAME)"
        )


def exposed(engine: Engine) -> list[str]:
    """Tell which files of an SQLite journal, or its folder, others than their owner may use; a line
    each.
    """
    return exposed_files(Path(engine.url.database or "")) if is_sqlite(engine) else []


def migrate(engine: Engine) -> None:
    """Bring the schema up to date; several workers may try at once."""
    if current_revision(engine) == head_revision():
        return
    from alembic import command  # noqa: PLC0415 - ten megabytes for what is done once in a version's life

    with engine.begin() as connection:
        if not is_sqlite(engine):
            from workers.journal.postgres import wait_as_long_as_it_takes  # noqa: PLC0415

            wait_as_long_as_it_takes(connection)
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK}
            )
        command.upgrade(_config(connection), "head")


def current_revision(engine: Engine) -> str | None:
    """The revision of the schema; None where there is none. Changes nothing."""
    with _reading(engine) as connection:
        if not engine.dialect.has_table(connection, "alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return str(found) if found is not None else None


def head_revision() -> str:
    """The revision that this version of the worker needs: the newest file beside this one."""
    versions = Path(__file__).parent / "migrations" / "versions"
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise JournalError(f"the journal cannot be opened: {reason}") from None


def _config(connection: Connection) -> Any:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
