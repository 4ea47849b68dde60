"""Creates missing streams. Existing streams are not changed.

The right to change a stream's number of replicas is also the right to shorten the log, so no
service has it. Operators use :mod:`abaco_jetstream.replicate`.
"""

import logging

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from abaco_proto import streams
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

NO_ROOM = frozenset(
    {
        10002,  # resource limits exceeded for account
        10005,  # no suitable peers for placement: too few of a cluster's servers have room
        10023,  # insufficient resources
        10028,  # insufficient memory resources available
        10047,  # insufficient storage resources available
    }
)
"""JetStream error codes for a stream that cannot be created for lack of space."""


async def ensure_streams(jetstream: JetStreamContext, replicas: int | None) -> None:
    """Create missing streams with this number of replicas, or 1 if it is None."""
    for stream in streams.ALL:
        try:
            info = await jetstream.stream_info(stream.name)
        except NotFoundError:
            info = await _create(jetstream, stream, replicas or 1)
        if replicas not in (None, info.config.num_replicas):
            logger.warning(
                "stream %s has %s replicas and ABACO_NATS_REPLICAS is %d; no service may change a"
                " stream. Set the replicas as described in docs/how-to/cluster.md",
                *(stream.name, info.config.num_replicas, replicas),
            )


async def _create(jetstream: JetStreamContext, stream: streams.Stream, replicas: int) -> StreamInfo:
    """Create one.

    Raises:
        Unavailable: JetStream has no space for it; the message contains what to do.
    """
    try:
        return await jetstream.add_stream(stream_config(stream, replicas))
    except APIError as error:
        if error.err_code not in NO_ROOM:
            raise
        raise Unavailable(_no_room(stream, error)) from error


def _no_room(stream: streams.Stream, error: APIError) -> str:
    sentence = (
        f"no room for the stream {stream.name}: {error.description} (error {error.err_code}). "
        f"Give the NATS server more disk space, or raise max_file_store in its configuration"
    )
    if stream.max_bytes:
        needed = stream.max_bytes // streams.MEBIBYTE
        sentence += f": {stream.name} reserves {needed} MiB"
    return f"{sentence}. See docs/how-to/outages.md"


async def set_replicas(jetstream: JetStreamContext, replicas: int) -> list[str]:
    """Set the number of replicas of every stream; return the names of those that were changed.

    A durable consumer has as many replicas as its stream.
    """
    changed = []
    for stream in streams.ALL:
        config = (await jetstream.stream_info(stream.name)).config
        if config.num_replicas != replicas:
            await jetstream.update_stream(config.evolve(num_replicas=replicas))
            changed.append(stream.name)
    return changed


def stream_config(stream: streams.Stream, replicas: int = 1) -> StreamConfig:
    """The configuration of one of our streams for JetStream."""
    return StreamConfig(
        name=stream.name,
        description=stream.description,
        subjects=list(stream.subjects),
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=stream.max_age_seconds,
        max_bytes=stream.max_bytes or -1,
        max_msgs_per_subject=stream.max_per_subject or -1,
        deny_delete=stream.append_only,
        deny_purge=stream.append_only,
        allow_direct=True,
        duplicate_window=stream.duplicate_window_seconds,
        num_replicas=replicas,
    )
