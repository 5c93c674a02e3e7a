"""What is looked at before an order is begun: noted one by one, so that a plan can show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from handlers.openstack.errors import CloudRefusal
from messages.codes import Code
from messages.errors import Refused, Transient


@dataclass(frozen=True, slots=True)
class Check:
    """One check, of one server or of the whole order. `later`: it failed, and a later try may find
    it passed.
    """

    name: str
    instance_id: str | None
    failure: Refused | None = None
    later: bool = False


class Checks:
    """The checks of one request, in the order in which they ended."""

    def __init__(self) -> None:
        self.listed: list[Check] = []

    @contextmanager
    def of(self, name: str, instance_id: str | None = None) -> Iterator[None]:
        """Inside it is looked at; what is raised there is why the check failed, and is raised on."""
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
                self.listed.append(Check(name, instance_id, failure, later=True))
            raise
        self.listed.append(Check(name, instance_id))

    @property
    def failed(self) -> Check | None:
        """The first that failed."""
        return next((one for one in self.listed if one.failure is not None), None)
