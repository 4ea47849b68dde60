"""Container output on the stream ``ABACO_LOGS``: raw bytes with their metadata in the headers."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.ports import OutputBatch
from abaco_jetstream.push_consumer import Message, follow
from abaco_proto import streams
from abaco_proto.names import output_subject
from abaco_proto.output import Output, RecordedOutput

ATTEMPT = "Abaco-Attempt"
OFFSET = "Abaco-Offset"
SUBJECT_TOKENS = 5
UNKNOWN_TOKENS = ("",) * SUBJECT_TOKENS

_COUNT = re.compile(r"[0-9]{1,18}")


class JetStreamOutputLog:
    """Implements :class:`abaco_jetstream.ports.OutputLog`."""

    def __init__(self, connection: Connection) -> None:
        """The output stream behind an open (or opening) connection."""
        self._connection = connection

    async def write(self, output: Output) -> None:
        """See :meth:`abaco_jetstream.ports.OutputLog.write`."""
        subject = output_subject(output.tenant, output.actor_id, output.execution_id)
        chunk = f"{output.tenant}.{output.execution_id}.{output.attempt}.{output.offset}"
        headers = {
            "Nats-Msg-Id": f"{chunk}.{len(output.data)}",
            ATTEMPT: str(output.attempt),
            OFFSET: str(output.offset),
        }
        await self._connection.request(subject, output.data, headers)

    async def follow(self, *, after: int = 0) -> AsyncGenerator[OutputBatch, None]:
        """See :meth:`abaco_jetstream.ports.OutputLog.follow`."""
        async with aclosing(self._follow([*streams.LOGS.subjects], after)) as batches:
            async for batch in batches:
                yield batch

    async def follow_execution(
        self, tenant: str, actor_id: str, execution_id: str
    ) -> AsyncGenerator[OutputBatch, None]:
        """See :meth:`abaco_jetstream.ports.OutputLog.follow_execution`."""
        one = [output_subject(tenant, actor_id, execution_id)]
        async with aclosing(self._follow(one, 0)) as batches:
            async for batch in batches:
                yield batch

    async def _follow(self, filters: list[str], after: int) -> AsyncGenerator[OutputBatch, None]:
        stream = streams.LOGS.name
        async with aclosing(follow(self._connection, stream, filters, after=after)) as batches:
            async for messages in batches:
                chunks = [_recorded(message) for message in messages.items]
                yield OutputBatch(chunks=chunks, pending=messages.pending)


def _recorded(message: Message) -> RecordedOutput:
    """The chunk in a message; never raises. Empty ids if the subject is not one of output."""
    tokens = message.subject.split(".")
    _, _, tenant, actor_id, execution_id = (
        tokens if len(tokens) == SUBJECT_TOKENS else UNKNOWN_TOKENS
    )
    headers = message.headers or {}
    output = Output(
        tenant=tenant,
        actor_id=actor_id,
        execution_id=execution_id,
        attempt=_number(headers.get(ATTEMPT)),
        offset=_number(headers.get(OFFSET)),
        data=message.body,
    )
    return RecordedOutput(sequence=message.sequence, output=output)


def _number(text: str | None) -> int:
    """A count in a header; 0 if it is not a number, or too large for a 64-bit column."""
    return int(text) if text is not None and _COUNT.fullmatch(text) else 0
