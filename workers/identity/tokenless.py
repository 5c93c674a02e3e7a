"""softDown messages, which have no token: only some publishers may send them."""

from collections.abc import Collection

from workers.amqp.envelope import Envelope

#: The operation that has no token.
SOFT_DOWN = "order.softDown"


def may_omit_token(envelope: Envelope, publishers: Collection[str]) -> bool:
    """Whether a message without token counts.

    `publishers` are AMQP users (`ECS_TOKENLESS_PUBLISHERS`). RabbitMQ refuses a message whose
    `user_id` is not that of the connection it came by, so the property can be believed; one without
    it is nobody's.
    """
    return envelope.user_id is not None and envelope.user_id in publishers
