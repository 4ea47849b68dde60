"""The message that an event becomes for an actor that subscribed."""

import msgspec

from abaco_api.domain.messages import MAX_STRING_BYTES, MESSAGE_NAME
from abaco_api.domain.subscription_fold import Subscription
from abaco_api.streams.domain.encoded_event import EncodedEvent
from abaco_proto import events as ev
from abaco_proto import names

JSON = "application/json"
MOST_BYTES = MAX_STRING_BYTES - len(MESSAGE_NAME) - 1
"""The longest text that ``$MSG`` can hold."""


def message(subscription: Subscription, item: EncodedEvent, ordinal: int) -> ev.MessageReceived:
    """The ``ordinal``-th message of the subscriber's inbox."""
    return ev.MessageReceived(
        actor_id=subscription.actor_id,
        execution_id=names.execution_id(subscription.actor_id, ordinal),
        ordinal=ordinal,
        message=text(item),
        content_type=JSON,
        sender=item.actor_id,
        subscription_id=subscription.subscription_id,
        source_sequence=item.sequence,
    )


def text(item: EncodedEvent) -> str:
    """The event as JSON, without its ``data`` if it is too long for a variable.

    Then ``data_omitted`` is true, and ``href`` is the address of the whole event.
    """
    if len(item.json) <= MOST_BYTES:
        return item.json.decode()
    event = msgspec.json.decode(item.json)
    short = {**event, "data": None, "data_omitted": True, "href": f"/events/{item.sequence}"}
    return msgspec.json.encode(short).decode()
