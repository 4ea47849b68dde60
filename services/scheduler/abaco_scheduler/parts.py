"""Large values in parts: a snapshot has no bound, and a message has one.

A value that fits into one part is put under its name as it is. A larger one is put in parts of
equal size under names of their own, and then an index under its name. The parts of the last two
values have different names, so whoever reads the index before it is replaced finds its parts. Parts
that were replaced by somebody else do not have the digest that the index names: then there is no
value.
"""

from hashlib import sha256

import msgspec

from abaco_proto.snapshots import Snapshots

PART_BYTES = 1024 * 1024
"""NATS takes messages of so many bytes unless it is told otherwise, so every server takes a part;
headers and subject included it must be less."""

PART_ROOM = PART_BYTES - 1024

MARK = b"abaco parts 1\n"
"""How an index begins. A packed snapshot begins with a digest, which is never this."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the two sets of parts a value is in, how many they are, and the value's digest."""

    side: int
    parts: int
    digest: bytes


async def put(snapshots: Snapshots, name: str, value: bytes) -> int:
    """Put a value; into how many parts.

    Raises:
        Unavailable: it is not put, and the last value is still there.
    """
    if len(value) <= PART_ROOM:
        await snapshots.put(name, value)
        return 1
    before = _index(await snapshots.get(name))
    side = 1 - before.side if before is not None else 0
    pieces = [value[at : at + PART_ROOM] for at in range(0, len(value), PART_ROOM)]
    for number, piece in enumerate(pieces):
        await snapshots.put(_part(name, side, number), piece)
    index = Index(side=side, parts=len(pieces), digest=sha256(value).digest())
    await snapshots.put(name, MARK + msgspec.msgpack.encode(index))
    return len(pieces)


async def get(snapshots: Snapshots, name: str) -> bytes | None:
    """The value that was put last; None when there is none, or not all of it.

    Raises:
        Unavailable: there is no answer.
    """
    stored = await snapshots.get(name)
    index = _index(stored)
    if index is None:
        return stored
    pieces = [await snapshots.get(_part(name, index.side, n)) or b"" for n in range(index.parts)]
    value = b"".join(pieces)
    return value if sha256(value).digest() == index.digest else None


def _part(name: str, side: int, number: int) -> str:
    return f"{name}-{'ab'[side]}-{number}"


def _index(stored: bytes | None) -> Index | None:
    """The index that is stored; None for a whole value, for nothing, and for damage."""
    if stored is None or not stored.startswith(MARK):
        return None
    try:
        return msgspec.msgpack.decode(stored[len(MARK) :], type=Index)
    except msgspec.DecodeError:
        return None
