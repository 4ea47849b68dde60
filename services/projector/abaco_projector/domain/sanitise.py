"""Replaces NUL, which Postgres refuses in text, with U+FFFD.

Events are sanitised, not rows, so that keys are equal wherever they are compared.
"""

from typing import Any

import msgspec

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, encode

NUL = "\x00"
REPLACEMENT = "\ufffd"
_ESCAPED_NUL = b"\\u0000"


def sanitise(recorded: Recorded) -> Recorded:
    """Return the event without NUL. An actor's state keeps it: the state is stored as escaped
    JSON.
    """
    if _ESCAPED_NUL not in (recorded.raw or encode(recorded.event)):
        return recorded
    event = recorded.event
    if isinstance(event, ev.Unrecognized | ev.ActorStateSet):
        return recorded
    body = _replaced(msgspec.to_builtins(event))
    return msgspec.structs.replace(recorded, event=msgspec.convert(body, type(event)))


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(NUL, REPLACEMENT)
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    return value
