"""A snapshot: the cluster as bytes, so that a start need not read all that ever happened.

Theory: a cluster is a fold, so what it was after one event and the events behind that say all. A
snapshot is a shortcut and never a source: it holds only under the very code that folded it, and
on the very log that it was folded from. Whatever else there is, is thrown away, and the fold begins
at the beginning. ``tests/unit/test_scheduler_snapshot.py`` plays histories both ways.

What is not folded from the log is not in it: signs of life. What follows from the rest is counted
again; and every actor may need a decision, as after a replay.
"""

import zlib
from array import array
from collections import Counter, deque
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any, get_origin

import msgspec

from abaco_proto.envelope import Recorded
from abaco_scheduler.abandoned import INTEGER
from abaco_scheduler.cluster import Cluster, Desk, Host

QUICKLY = 1
"""The level of compression: more of it takes far longer and saves little."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster, and what it rests on: the ``code``, and the event of the log that it ends with.

    ``time`` is when it was taken: no time in it is later.
    """

    code: str
    time: datetime
    sequence: int
    proof: str
    requested_sequence: int
    desks: list[Desk]
    hosts: list[Host]


def proof(recorded: Recorded) -> str:
    """What tells an event of one log from that of another log in the same place."""
    words = (recorded.sequence, recorded.subject, recorded.id, recorded.causation_id)
    parts = (*map(str, words), recorded.time.isoformat())
    return sha256("\n".join(parts).encode() + recorded.raw).hexdigest()


def take(cluster: Cluster, code: str, proof: str, time: datetime) -> bytes:
    """The cluster now, which ends with an event of that proof. Not compressed yet."""
    return _encoder.encode(
        Snapshot(
            code=code,
            time=time,
            sequence=cluster.sequence,
            proof=proof,
            requested_sequence=cluster.requested_sequence,
            desks=list(cluster.desks.values()),
            hosts=[host for host in cluster.hosts.values() if host.sequence],
        )
    )


def packed(taken: bytes) -> bytes:
    """What is stored of a snapshot that was taken."""
    return sha256(taken).digest() + zlib.compress(taken, QUICKLY)


def unpacked(stored: bytes, code: str) -> Snapshot | None:
    """The snapshot in what is stored; None when it is damaged, or was made by other code."""
    digest, rest = stored[:32], stored[32:]
    try:
        taken = zlib.decompress(rest)
        if sha256(taken).digest() != digest or _label.decode(taken).code != code:
            return None
        return _decoder.decode(taken)
    except (zlib.error, msgspec.DecodeError):
        return None


def restored(snapshot: Snapshot) -> Cluster:
    """The cluster as the fold had it then."""
    desks = {desk.key: desk for desk in snapshot.desks}
    seats = (worker.host_id for desk in snapshot.desks for worker in desk.workers.values())
    return Cluster(
        desks=desks,
        hosts={
            host.host_id: replace(host, offered=host.capacity, heard_at=0.0)
            for host in snapshot.hosts
        },
        load=Counter(seats),
        unsettled=set(desks),
        seated={key for key, desk in desks.items() if desk.workers},
        requested_sequence=snapshot.requested_sequence,
        sequence=snapshot.sequence,
    )


class _Label(msgspec.Struct):
    """As much of a snapshot as every version of it has."""

    code: str


def _encode(value: Any) -> Any:
    return list(value)  # of a deque or an array: all else is known


def _decode(kind: Any, value: Any) -> Any:
    return deque(value) if get_origin(kind) is deque else array(INTEGER, value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
_decoder = msgspec.msgpack.Decoder(Snapshot, dec_hook=_decode)
_label = msgspec.msgpack.Decoder(_Label)
