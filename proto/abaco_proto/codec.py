"""Events to bytes and back: msgspec JSON, tagged with ``type``.

Writing is strict, reading is total: what cannot be read comes back as
:class:`~abaco_proto.events.Unrecognized`, never as an exception, so that one poisoned event
cannot stop a service.
"""

from typing import Union

import msgspec

from abaco_proto.events import OWNERS, Event, Unrecognized
from abaco_proto.upcast import UPCASTS, upcast

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that bytes can do to a decoder; the last by brackets without end."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(OWNERS)])  # noqa: UP007


def encode(event: Event) -> bytes:
    """The bytes of an event; equal events have equal bytes."""
    return _encoder.encode(event)


def decode(raw: bytes) -> Event:
    """The event in ``raw``, upcast if it is of a retired type; ``Unrecognized`` when unreadable."""
    try:
        return _decoder.decode(raw)
    except UNREADABLE as error:
        return _decode_retired(raw, str(error))


def _decode_retired(raw: bytes, reason: str) -> Event:
    try:
        body = msgspec.json.decode(raw, type=dict)
        if str(body.get("type")) in UPCASTS:
            return _decoder.decode(_encoder.encode(upcast(body)))
    except UNREADABLE as error:
        reason = str(error)
    return Unrecognized(raw=raw, reason=reason)
