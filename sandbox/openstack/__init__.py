"""An OpenStack that needs no installation: it behaves as the real one for the calls that are made.

A verified double: the suite in `tests/openstack` runs against it and against the real services, and
where they differ the real ones are right. Nothing is kept; states take time; faults come on
request.
"""

from sandbox.openstack.client import SimulatedOpenStack

__all__ = ["SimulatedOpenStack"]
