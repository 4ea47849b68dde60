"""Single messages of a stream."""

from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from abaco_jetstream.connection import Connection


async def stored(
    connection: Connection,
    stream: str,
    *,
    seq: int | None = None,
    subject: str | None = None,
    direct: bool = False,
) -> RawStreamMsg | None:
    """The message at a sequence, or the last one that a subject selects.

    A ``direct`` read may be answered by a replica that lags; the other one by the leader.

    Raises:
        Unavailable: the log did not answer.
    """

    async def call() -> RawStreamMsg | None:
        try:
            return await connection.jetstream.get_msg(
                stream, seq=seq, subject=subject, direct=direct
            )
        except NotFoundError:
            return None

    return await connection.ask(call)
