"""What an order does, thing by thing, as a plan tells it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that is done to a server, or to a disk, port or address of it (`target`, its id)."""

    name: str
    instance_id: str | None
    before: Any
    after: Any
    can_be_undone: bool = True
    target: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return {
            "name": self.name,
            "instanceId": self.instance_id,
            "target": self.target,
            "before": self.before,
            "after": self.after,
            "canBeUndone": self.can_be_undone,
        }
