"""Events to bytes and back: msgspec JSON, tagged with ``type``.

Encoding is strict. Decoding never raises: what cannot be decoded is returned as
:class:`~abaco_proto.events.Unrecognized`, so that one bad event cannot stop a service.
"""

from typing import Union

import msgspec

from abaco_proto.events import OWNERS, Event, Unrecognized
from abaco_proto.upcast import UPCASTS, upcast

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a decoder; the last one for deeply nested brackets."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(OWNERS)])  # noqa: UP007


def encode(event: Event) -> bytes:
    """The bytes of an event; equal events have equal bytes."""
    return _encoder.encode(event)


def decode(raw: bytes) -> Event:
    """The event in ``raw``, upcast if its type is retired; ``Unrecognized`` if it is unreadable."""
    try:
        return _decoder.decode(raw)
    except DECODE_ERRORS as error:
        return _decode_retired(raw, str(error))


def _decode_retired(raw: bytes, reason: str) -> Event:
    try:
        body = msgspec.json.decode(raw, type=dict)
        if str(body.get("type")) in UPCASTS:
            return _decoder.decode(_encoder.encode(upcast(body)))
    except DECODE_ERRORS as error:
        reason = str(error)
    return Unrecognized(raw=raw, reason=reason)
