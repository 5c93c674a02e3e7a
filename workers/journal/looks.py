"""Looks of operators into queues that nobody consumes, counted for all of them together."""

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from messages.record import record
from workers.journal import schema
from workers.journal.database import journal_error, open_engine, reading_engine
from workers.journal.records import JournalError


@record
class Look:
    """The last look into a queue; times are Unix seconds.

    `ready` messages waited then. `returned`: how often the message at its head had been given back
    by then, this look included. `head_at`: when that message was published, None where it does not
    say.
    """

    queue: str
    looked_at: float
    ready: int
    returned: int
    head_at: float | None


class Looks:
    """Reads and writes the looks. Blocks; raises `JournalError` where the database cannot be used."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._reading = reading_engine(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def last(self, queue: str) -> Look | None:
        """Return the last look into a queue, None where there was none."""
        table = schema.looks
        try:
            with self._reading.connect() as connection:
                row = connection.execute(select(table).where(table.c.queue == queue)).first()
        except (SQLAlchemyError, OSError) as error:
            raise _failed(error) from None
        return Look(*row) if row is not None else None

    def note(self, look: Look) -> None:
        """Note a look, before it is made: one that is not noted would not be counted."""
        table = schema.looks
        values = {
            "looked_at": look.looked_at,
            "ready": look.ready,
            "returned": look.returned,
            "head_at": look.head_at,
        }
        try:
            with self._engine.begin() as connection:
                known = update(table).where(table.c.queue == look.queue).values(**values)
                if not connection.execute(known).rowcount:
                    connection.execute(insert(table).values(queue=look.queue, **values))
        except IntegrityError:
            return  # another operator has just noted the same
        except (SQLAlchemyError, OSError) as error:
            raise _failed(error) from None


def _failed(error: Exception) -> JournalError:
    return journal_error("the journal cannot be used", error)
