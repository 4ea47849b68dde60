"""The encoding of a snapshot: the cluster as bytes, so that a start need not read the whole log.

Theory: the cluster is a fold, so its state after one event, plus the later events, gives its state
now. A snapshot is a shortcut and never a source: it is valid only for the very code that folded it
and for the very log that it was folded from. Any other snapshot is ignored, and the fold starts
with the first event. ``tests/unit/test_scheduler_snapshot.py`` folds histories both ways.

Heartbeats are not in the log and not in a snapshot. Sets and counts that follow from the rest are
computed again, and every actor is unreconciled, as after a replay.
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
from abaco_scheduler.domain.abandoned_executions import INTEGER
from abaco_scheduler.domain.actor_state import ActorState
from abaco_scheduler.domain.cluster import Cluster, Host

COMPRESSION_LEVEL = 1
"""The fastest: higher levels take far longer and save little."""

DIGEST_BYTES = 32


class ClusterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster and what it is valid for.

    ``code_digest`` identifies the code that folded it. ``sequence`` and ``event_digest`` identify
    the last event that it contains. ``time`` is when it was taken: no time in it is later.
    """

    code_digest: str
    time: datetime
    sequence: int
    event_digest: str
    worker_request_sequence: int
    tenant_assigned_at: dict[str, datetime]
    actors: list[ActorState]
    hosts: list[Host]


def event_digest(recorded: Recorded) -> str:
    """Return a digest that differs between events of two logs with the same sequence."""
    fields = (recorded.sequence, recorded.subject, recorded.id, recorded.causation_id)
    lines = (*map(str, fields), recorded.time.isoformat())
    return sha256("\n".join(lines).encode() + recorded.raw).hexdigest()


def encode(cluster: Cluster, code_digest: str, event_digest: str, time: datetime) -> bytes:
    """Return the cluster as bytes, not compressed yet; ``event_digest`` is of its last event."""
    return _encoder.encode(
        ClusterSnapshot(
            code_digest=code_digest,
            time=time,
            sequence=cluster.sequence,
            event_digest=event_digest,
            worker_request_sequence=cluster.worker_request_sequence,
            tenant_assigned_at=cluster.tenant_assigned_at,
            actors=list(cluster.actors.values()),
            hosts=[host for host in cluster.hosts.values() if host.sequence],
        )
    )


def compress(encoded: bytes) -> bytes:
    """Return the bytes to store: a digest of the encoded snapshot, then its compressed form."""
    return sha256(encoded).digest() + zlib.compress(encoded, COMPRESSION_LEVEL)


def decode(stored: bytes, code_digest: str) -> ClusterSnapshot | None:
    """Return the stored snapshot; None if it is damaged or was made by other code."""
    digest, compressed = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    try:
        encoded = zlib.decompress(compressed)
        if sha256(encoded).digest() != digest:
            return None
        if _header_decoder.decode(encoded).code_digest != code_digest:
            return None
        return _decoder.decode(encoded)
    except (zlib.error, msgspec.DecodeError):
        return None


def restore(snapshot: ClusterSnapshot) -> Cluster:
    """Return the cluster as it was when the snapshot was taken, without heartbeats."""
    actors = {state.key: state for state in snapshot.actors}
    hosts_of_workers = (w.host_id for state in snapshot.actors for w in state.workers.values())
    return Cluster(
        actors=actors,
        hosts={
            host.host_id: replace(host, announced_capacity=host.capacity, last_heartbeat=0.0)
            for host in snapshot.hosts
        },
        worker_counts=Counter(hosts_of_workers),
        unreconciled=set(actors),
        with_workers={key for key, state in actors.items() if state.workers},
        tenant_assigned_at=snapshot.tenant_assigned_at,
        worker_request_sequence=snapshot.worker_request_sequence,
        sequence=snapshot.sequence,
    )


class _Header(msgspec.Struct):
    """The field that a snapshot of any version has, whatever else is in it."""

    code_digest: str


def _to_builtin(value: Any) -> Any:
    """Encode a deque or an array, the only types that msgspec does not know."""
    return list(value)


def _from_builtin(kind: Any, value: Any) -> Any:
    return deque(value) if get_origin(kind) is deque else array(INTEGER, value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_builtin)
_decoder = msgspec.msgpack.Decoder(ClusterSnapshot, dec_hook=_from_builtin)
_header_decoder = msgspec.msgpack.Decoder(_Header)
