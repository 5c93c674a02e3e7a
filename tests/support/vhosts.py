"""Virtual hosts for many tests on one node."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.broker import PrivateBroker


@contextmanager
def fresh_vhost(broker: PrivateBroker) -> Iterator[str]:
    """Yield the URL of a virtual host without any queue; it is removed afterwards."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield broker.add_vhost(name)
    broker.delete_vhost(name)
