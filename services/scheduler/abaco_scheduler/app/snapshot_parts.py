"""Stores large snapshots in parts: a snapshot has no bound, and a NATS message has one.

A value that fits into one message is stored under its name as it is. A larger one is stored in
parts of equal size under names of their own, and then an index under the value's name. Two
successive values use different names for their parts, so the parts stay readable until the index
is replaced. If another process replaced parts in the meantime, the digest in the index does not
match, and the value counts as missing.
"""

from hashlib import sha256

import msgspec

from abaco_jetstream.ports import Snapshots

MAX_MESSAGE_BYTES = 1024 * 1024
"""The default limit of NATS, headers and subject included, so that every server accepts a part."""

MAX_PART_BYTES = MAX_MESSAGE_BYTES - 1024

INDEX_MARK = b"abaco parts 1\n"
"""The first bytes of an index. A stored snapshot starts with a digest, which never equals this."""


class PartIndex(msgspec.Struct, frozen=True, kw_only=True):
    """Where a value is: the set of names (0 or 1), the number of parts, the value's SHA-256."""

    side: int
    parts: int
    digest: bytes


async def put(snapshots: Snapshots, name: str, value: bytes) -> int:
    """Store a value; return the number of parts.

    Raises:
        Unavailable: it is not stored, and the previous value still is.
    """
    if len(value) <= MAX_PART_BYTES:
        await snapshots.put(name, value)
        return 1
    previous = _decoded_index(await snapshots.get(name))
    side = 1 - previous.side if previous is not None else 0
    offsets = range(0, len(value), MAX_PART_BYTES)
    parts = [value[offset : offset + MAX_PART_BYTES] for offset in offsets]
    for number, part in enumerate(parts):
        await snapshots.put(_part_name(name, side, number), part)
    index = PartIndex(side=side, parts=len(parts), digest=sha256(value).digest())
    await snapshots.put(name, INDEX_MARK + msgspec.msgpack.encode(index))
    return len(parts)


async def get(snapshots: Snapshots, name: str) -> bytes | None:
    """Return the value that was stored last; None if there is none, or a part of it is missing.

    Raises:
        Unavailable: NATS does not answer.
    """
    stored = await snapshots.get(name)
    index = _decoded_index(stored)
    if index is None:
        return stored
    names = [_part_name(name, index.side, number) for number in range(index.parts)]
    value = b"".join([await snapshots.get(part) or b"" for part in names])
    return value if sha256(value).digest() == index.digest else None


def _part_name(name: str, side: int, number: int) -> str:
    return f"{name}-{'ab'[side]}-{number}"


def _decoded_index(stored: bytes | None) -> PartIndex | None:
    """Return the stored index; None for a value in one message, for none, and for a damaged one."""
    if stored is None or not stored.startswith(INDEX_MARK):
        return None
    try:
        return msgspec.msgpack.decode(stored[len(INDEX_MARK) :], type=PartIndex)
    except msgspec.DecodeError:
        return None
