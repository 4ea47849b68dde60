"""Whether the leader of the log still reaches a majority of the servers.

A leader that is cut off answers reads from its own disk, so that a process which only reads would
never notice. Such a process asks for the state of the stream of events every few seconds.
"""

from collections.abc import Mapping
from typing import Any

from abaco_jetstream.connection.nats_errors import RetryableError
from abaco_proto import streams

PROBE_SUBJECT = f"$JS.API.STREAM.INFO.{streams.EVENTS.name}"

CONTACT_SECONDS = 4.0
"""A replica that the leader last heard from longer ago counts as unreachable. The servers send to
each other every second."""

NANOSECONDS = 1_000_000_000


def check_leader(info: Mapping[str, Any]) -> None:
    """Check the reply to ``PROBE_SUBJECT``.

    Raises:
        RetryableError: the leader does not reach a majority.
    """
    if not has_majority(info.get("cluster") or {}):
        raise RetryableError("the leader of the log does not reach a majority of the servers")


def has_majority(cluster: Mapping[str, Any]) -> bool:
    """Whether the leader of a stream reaches a majority, from ``cluster`` of ``STREAM.INFO``.

    A stream with one replica always has its majority.
    """
    others = cluster.get("replicas") or []
    reachable = [
        other
        for other in others
        if not other.get("offline") and other.get("active", 0) < CONTACT_SECONDS * NANOSECONDS
    ]
    return 2 * (1 + len(reachable)) > 1 + len(others)
