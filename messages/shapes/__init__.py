"""What crosses the wire, as JSON Schema: for the tools of publishers and consumers.

The parsers decide. A schema forbids nothing that they take; of what they refuse it forbids what
such a schema can say.
"""

from messages.shapes.answers import (
    ORDER_RESULT,
    PARKED_HEADERS,
    RESULT_HEADERS,
    STATUS_UPDATE,
    result_of,
)
from messages.shapes.order_messages import ORDERS, SOFT_DOWN
from messages.shapes.requests import HEADERS, REQUESTS
from messages.shapes.schema import Schema

__all__ = [
    "HEADERS",
    "ORDERS",
    "ORDER_RESULT",
    "PARKED_HEADERS",
    "REQUESTS",
    "RESULT_HEADERS",
    "SOFT_DOWN",
    "STATUS_UPDATE",
    "Schema",
    "result_of",
]
