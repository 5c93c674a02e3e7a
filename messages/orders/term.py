"""The duration of an order: how long something is paid for."""

import calendar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from messages.fields import Taken, WrongValue, keyword, number, whole, word
from messages.orders.order import PaidOrder
from messages.record import record


class Unit(StrEnum):
    """The unit of a duration."""

    HOUR = "H"
    DAY = "D"
    MONTH = "M"
    YEAR = "Y"


#: A hundred years: longer terms are mistakes, and calendars end.
_MOST = {Unit.HOUR: 876_600, Unit.DAY: 36_525, Unit.MONTH: 1_200, Unit.YEAR: 100}


@record
class Term:
    """A length of time as it is sold."""

    number: int
    unit: Unit

    def after(self, begin: datetime) -> datetime:
        """Return the end of a term that begins then, in the same time zone.

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


def _months_later(begin: datetime, months: int) -> datetime:
    year, month = divmod(begin.year * 12 + begin.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    at_the_end = begin.day == calendar.monthrange(begin.year, begin.month)[1]
    # Which of two equal hours it was says nothing of another day.
    return begin.replace(
        year=year, month=month + 1, day=last if at_the_end else min(begin.day, last), fold=0
    )


def _unit(value: Any) -> Unit:
    try:
        return Unit(word(value).upper())
    except WrongValue:
        raise
    except ValueError:
        raise WrongValue("it is counted in H, D, M or Y") from None


class TermOrder(PaidOrder):
    """An order for a term."""

    duration: Annotated[int, Taken(whole, number(1, 10**12 - 1))]
    unit: Annotated[Unit, Taken(_unit, keyword(*Unit))] = Field(alias="durationUnit")

    @model_validator(mode="after")
    def _sold(self) -> "TermOrder":
        if not 1 <= self.duration <= _MOST[self.unit]:
            detail = f"it is at least 1 and at most {_MOST[self.unit]} {self.unit}"
            raise WrongValue(detail, "duration")
        return self

    @property
    def term(self) -> Term:
        """The term that is paid for."""
        return Term(self.duration, self.unit)
