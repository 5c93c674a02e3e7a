"""One step of an order as data, and the failure of a step."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from handlers.effects.ledger import EffectId
from handlers.effects.once import Landed, Marked
from handlers.openstack.errors import CloudRefusal
from handlers.openstack.sessions import Reply
from messages.codes import Code
from messages.errors import Refused
from messages.updates import OrderStatus


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer of `Step.prepare`: the call may be made.

    `marker` is what the cloud showed just before the call, such as a server's `updated`; it is kept
    with the intent in the journal, and `Step.landed` is called with it.
    """

    marker: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change to a server, or to a disk, port or address of it.

    An order is one list of steps, in the order in which a plan prints them. `handlers.orders.saga`
    does them (`do_steps`), undoes them (`undo_steps`) and lists their request ids (`request_ids`);
    `to_json` previews one. Steps with the same `name` are done at the same time; names follow each
    other in the order in which they first appear in the list.

    Doing a step is: `prepare`; the intent in the journal; `act`; the outcome in the journal;
    `follow`. `Refused` from any of them fails the order and has all its steps undone; `Transient`
    (also `Postponed`) makes the order come again, and then each step goes on where it was: nothing
    is done twice.
    """

    #: The name that `order.plan` prints: "resize", "extend" ...
    name: str
    #: The name of the call in the journal, `what:whose`. Stored: never change the text.
    effect: EffectId
    instance_id: str | None
    before: Any
    after: Any
    #: Makes the one call to OpenStack.
    act: Callable[[], Awaitable[Reply]]
    #: Looks in the cloud for the call whose answer was lost. Called with the marker; returns the
    #: call's request id (empty: done, without an id), or None where it was not done.
    landed: Landed
    #: Looks for the call before its first intent: for what a run did of which a lost or restored
    #: journal knows nothing. Returns what `landed` returns.
    marked: Marked | None = None
    #: Called before the call is made for the first time. Returns None where there is nothing to do:
    #: then the step has ended, without `act` and `follow`.
    prepare: Callable[[], Awaitable[Ready | None]] | None = None
    #: Called when OpenStack refused the call. Returns where that is as good as done (what was to be
    #: deleted is gone); raises `Refused` or `Transient` otherwise. Without it: `Refused`.
    refused: Callable[[CloudRefusal], Awaitable[None]] | None = None
    #: Waits until what the call began has ended, and checks it: `Refused` where it failed. Called
    #: again by each later run of the order.
    follow: Callable[[], Awaitable[None]] | None = None
    #: The compensation: steps that are done one after the other where the order has failed and this
    #: step was begun. Their `name` is not printed.
    undo: "tuple[Step, ...]" = ()
    #: What `order.plan` says: an extension has no way back, though a failed one is cleaned up.
    can_be_undone: bool = True
    #: The id of the disk, port or address; None where the step changes the server itself.
    target: str | None = None
    #: The order's status that is published before the first step of this name.
    status: OrderStatus | None = None
    #: Whether a plan prints the step.
    printed: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the step as it goes over the wire."""
        return {
            "name": self.name,
            "instanceId": self.instance_id,
            "target": self.target,
            "before": self.before,
            "after": self.after,
            "canBeUndone": self.can_be_undone,
        }


def failed(reason: str, detail: str | None = None) -> Refused:
    """Return the failure of a step, 101.001040; `reason` is the word that a program can use."""
    return Refused(Code.FAILED, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class Deed:
    """A step as printed, of the kinds of orders whose steps are no `Step` yet."""

    name: str
    instance_id: str | None
    before: Any
    after: Any
    can_be_undone: bool = True
    target: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the step as it goes over the wire."""
        return {
            "name": self.name,
            "instanceId": self.instance_id,
            "target": self.target,
            "before": self.before,
            "after": self.after,
            "canBeUndone": self.can_be_undone,
        }
