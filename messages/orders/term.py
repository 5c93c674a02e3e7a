"""For how long something is paid."""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import whole, word


class Unit(StrEnum):
    """What a duration is counted in."""

    HOUR = "H"
    DAY = "D"
    MONTH = "M"
    YEAR = "Y"


#: A hundred years: longer terms are mistakes, and calendars end.
_MOST = {Unit.HOUR: 876_600, Unit.DAY: 36_525, Unit.MONTH: 1_200, Unit.YEAR: 100}


@dataclass(frozen=True, slots=True)
class Term:
    """A length of time as it is sold."""

    number: int
    unit: Unit

    def after(self, begin: datetime) -> datetime:
        """When a term that begins then is over, in the same time zone.

        Hours are hours; days, months and years keep the time of day. The last day of a month stays
        the last day of a month: a month after January 31 is the end of February, and a month after
        that is March 31.
        """
        match self.unit:
            case Unit.HOUR:
                return (begin.astimezone(UTC) + timedelta(hours=self.number)).astimezone(
                    begin.tzinfo
                )
            case Unit.DAY:
                return begin + timedelta(days=self.number)
            case Unit.MONTH:
                return _months_later(begin, self.number)
            case Unit.YEAR:
                return _months_later(begin, 12 * self.number)


def read_term(message: Mapping[str, Any]) -> Term:
    """`duration` and `durationUnit`."""
    number = whole(message.get("duration"), "duration")
    try:
        unit = Unit(word(message.get("durationUnit"), "durationUnit").upper())
    except ValueError:
        raise wrong("durationUnit", "it is counted in H, D, M or Y") from None
    if not 1 <= number <= _MOST[unit]:
        raise wrong("duration", f"it is at least 1 and at most {_MOST[unit]} {unit}")
    return Term(number, unit)


def _months_later(begin: datetime, months: int) -> datetime:
    year, month = divmod(begin.year * 12 + begin.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    at_the_end = begin.day == calendar.monthrange(begin.year, begin.month)[1]
    # Which of two equal hours it was says nothing of another day.
    return begin.replace(
        year=year, month=month + 1, day=last if at_the_end else min(begin.day, last), fold=0
    )
