"""A row as Postgres sends it, by hand."""

import struct
from datetime import UTC, datetime

from msgspec.structs import replace

import builders as b
from abaco_projector.domain.copy_format import expected_copy, expected_row


def test_one_row_by_hand() -> None:
    event = replace(
        b.record(b.received(0), 7),
        subject="abaco.event.t.foo_0.message.received",
        id="i",
        causation_id="",
        correlation_id="é",
        principal="user:anna",
        traceparent=None,
        hops=2,
        time=datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        raw=b"{}",
    )
    fields = [
        *(struct.pack(">q", 7), struct.pack(">q", -1), struct.pack(">i", 2), struct.pack(">i", 1)),
        *(b"t", b"foo_0", b"message.received", b"abaco.event.t.foo_0.message.received"),
        *(b"i", b"", "é".encode(), b"user:anna", None, b"{}", bytes(32)),
    ]
    by_hand = struct.pack(">h", len(fields))
    for field in fields:
        by_hand += struct.pack(">i", -1 if field is None else len(field)) + (field or b"")
    assert expected_row(event, bytes(32)) == by_hand
    assert expected_copy([by_hand]) == b"PGCOPY\n\xff\r\n\x00" + bytes(8) + by_hand + b"\xff\xff"
