"""Record of the checks that are made before an order is begun, so that a preview can list them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from handlers.openstack.errors import CloudRefusal
from messages.codes import Code
from messages.errors import Refused, Transient


@dataclass(frozen=True, slots=True)
class Check:
    """One check, of one server or of the whole order.

    `may_pass`: it failed, and may pass when the order is retried.
    """

    name: str
    instance_id: str | None
    failure: Refused | None = None
    may_pass: bool = False


class Checks:
    """The checks of one request, in the order in which they ended."""

    def __init__(self) -> None:
        self.listed: list[Check] = []

    @contextmanager
    def of(self, name: str, instance_id: str | None = None) -> Iterator[None]:
        """Record what is done inside as one check. An error raised inside is recorded as the reason
        why the check failed, and raised on.
        """
        try:
            yield
        except Refused as refused:
            self.listed.append(Check(name, instance_id, refused))
            raise
        except CloudRefusal as error:
            self.listed.append(Check(name, instance_id, error.as_failure()))
            raise
        except Transient as error:
            if error.reason == "busy":
                failure = Refused(Code.FAILED, reason=error.reason, detail=str(error))
                self.listed.append(Check(name, instance_id, failure, may_pass=True))
            raise
        self.listed.append(Check(name, instance_id))

    @property
    def failed(self) -> Check | None:
        """The first check that failed."""
        return next((one for one in self.listed if one.failure is not None), None)
