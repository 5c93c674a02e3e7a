"""Settings of PostgreSQL, and of the journal's role there, by which a promise may be broken."""

from sqlalchemy import Connection, Engine, inspect, text

from messages.record import record
from workers.journal import schema
from workers.journal.database import reading_connection

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


@record
class Weakness:
    """A promise that the database cannot keep. `is_fatal`: a worker could write nothing."""

    found: str
    advice: str
    is_fatal: bool = False


def weaknesses(engine: Engine) -> list[Weakness]:
    """Return what is weak about a PostgreSQL database. Raises `JournalError`."""
    with reading_connection(engine) as connection:
        if found := _read_only(connection):
            return [found]
        return [*_rights(connection), *_losses(connection), *_standbys(connection, engine)]


def _read_only(connection: Connection) -> Weakness | None:
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar():
        advice = "give the primary's address, or all hosts: postgresql://user:password@h1,h2/db"
        return Weakness("the database is a standby", advice, is_fatal=True)
    if _setting(connection, "transaction_read_only") == "on":
        advice = "set default_transaction_read_only = off for the database and the role"
        return Weakness("the database may only be read", advice, is_fatal=True)
    return None


def _rights(connection: Connection) -> list[Weakness]:
    role = connection.execute(text("SELECT current_user")).scalar()
    found = inspect(connection).get_table_names()
    missing = [
        f"{right} on {table}"
        for table in sorted(set(schema.metadata.tables) & set(found))
        for right in _RIGHTS
        if not connection.execute(
            text("SELECT has_table_privilege(CAST(:name AS text), :right)"),
            {"name": table, "right": right},
        ).scalar()
    ]
    # The tables of the next version are made, and those of this one changed, by the same role.
    may_create = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
    is_fatal = bool(missing) or not set(schema.metadata.tables) <= set(found)
    if not connection.execute(text(may_create)).scalar():
        missing.append("CREATE in the schema")
    if not missing:
        return []
    shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    advice = "let the role own the database (ALTER DATABASE … OWNER TO …) and its tables"
    return [Weakness(f"the role {role} has no right to {shown}", advice, is_fatal)]


def _losses(connection: Connection) -> list[Weakness]:
    advice = "a power cut or a crash of the machine may damage the journal; set it to on"
    return [
        Weakness(f"{name} is off", advice)
        for name in ("fsync", "full_page_writes")
        if _setting(connection, name) == "off"
    ]


def _standbys(connection: Connection, engine: Engine) -> list[Weakness]:
    """Tell of standbys. A role that is no member of pg_monitor sees how many there are, and not
    whether they are synchronous.
    """
    wanted = _setting(connection, "synchronous_standby_names")
    states = [
        row.sync_state
        for row in connection.execute(text("SELECT sync_state FROM pg_stat_replication"))
    ]
    hosts = str(engine.url.query.get("host", ""))
    if wanted and (not states or set(states) <= {"async", "potential"}):
        advice = "commits wait until one is connected; start it"
        return [Weakness(f"none of the synchronous standbys ({wanted}) is connected", advice)]
    if not wanted and (states or "," in hosts):
        advice = (
            "a failover may lose the last requests that were written down;"
            " set synchronous_standby_names (docs/operations/postgresql.md)"
        )
        return [Weakness("no standby is synchronous", advice)]
    return []


def _setting(connection: Connection, name: str) -> str:
    found = connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar()
    return str(found)
