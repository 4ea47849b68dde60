"""Reads single messages of a stream."""

from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from abaco_jetstream.connection.nats_connection import Connection


async def stored_message(
    connection: Connection,
    stream: str,
    *,
    seq: int | None = None,
    subject: str | None = None,
    direct: bool = False,
) -> RawStreamMsg | None:
    """The message at a sequence, or the last one that matches a subject; None if there is none.

    A ``direct`` read may be answered by a replica that lags, any other read by the leader.

    Raises:
        Unavailable: no answer in time.
    """

    async def get() -> RawStreamMsg | None:
        try:
            return await connection.jetstream.get_msg(
                stream, seq=seq, subject=subject, direct=direct
            )
        except NotFoundError:
            return None

    return await connection.call(get)
