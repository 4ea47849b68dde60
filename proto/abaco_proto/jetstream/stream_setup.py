"""Our streams on the server: made where they are missing, and else left as they are.

Only whoever may change a stream can give it more replicas, because the same right would let it
shorten the log. No service has it: :mod:`abaco_proto.jetstream.replicate` is for an operator.
"""

import logging

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from abaco_proto import streams

logger = logging.getLogger(__name__)


async def ensure_streams(jetstream: JetStreamContext, replicas: int | None) -> None:
    """Make the streams that are missing, on so many servers each; without a number, on one."""
    for stream in streams.ALL:
        try:
            info = await jetstream.stream_info(stream.name)
        except NotFoundError:
            info = await jetstream.add_stream(stream_config(stream, replicas or 1))
        if replicas not in (None, info.config.num_replicas):
            logger.warning(
                "%s is on %s servers, and ABACO_NATS_REPLICAS says %d: see docs/cluster.md",
                *(stream.name, info.config.num_replicas, replicas),
            )


async def replicate(jetstream: JetStreamContext, replicas: int) -> list[str]:
    """Put every stream on so many servers; the names of those that were on another number.

    A durable consumer follows its stream.
    """
    changed = []
    for stream in streams.ALL:
        config = (await jetstream.stream_info(stream.name)).config
        if config.num_replicas != replicas:
            await jetstream.update_stream(config.evolve(num_replicas=replicas))
            changed.append(stream.name)
    return changed


def stream_config(stream: streams.Stream, replicas: int = 1) -> StreamConfig:
    """What JetStream is told about one of our streams."""
    return StreamConfig(
        name=stream.name,
        description=stream.description,
        subjects=list(stream.subjects),
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=stream.max_age_seconds,
        max_bytes=stream.max_bytes or -1,
        max_msgs_per_subject=stream.max_per_subject or -1,
        allow_msg_ttl=stream.own_ages,
        deny_delete=stream.append_only,
        deny_purge=stream.append_only,
        allow_direct=True,
        duplicate_window=stream.duplicate_window_seconds,
        num_replicas=replicas,
    )
