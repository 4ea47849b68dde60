"""The appender: events of one request into the log, in their envelopes."""

from datetime import UTC, datetime
from uuid import uuid4

import msgspec

from abaco_api.once.attempt import current
from abaco_proto.envelope import Draft, Recorded, draft
from abaco_proto.events import Event
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import event_subject
from abaco_telemetry import spans


def request_id() -> str:
    """The id of a request; every event it leads to names it as its cause."""
    attempt = current()
    return f"req-{uuid4()}" if attempt is None else attempt.cause


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is appended, and when it was decided; without ``time`` that is now.

    Without ``correlation_id`` it is the first of its chain, and without ``traceparent`` a part of
    the step at hand, if there is one.
    """

    causation_id: str
    correlation_id: str | None = None
    hops: int = 0
    traceparent: str | None = None
    time: datetime | None = None


class Appender:
    """Appends what was decided on a history, if that history is still as it was."""

    def __init__(self, log: EventLog, tenant: str) -> None:
        self._log = log
        self._tenant = tenant

    async def append(self, event: Event, expected: Expected | None, cause: str | Cause) -> Recorded:
        """Append, and return the event as it is in the log. Without a condition, ids of events
        alone keep out what is there already.

        Raises:
            Conflict: the history went on; look again, and decide again.
            Unavailable: no answer in time.
            AlreadyDone: the request that this is done for has led to its event before.
        """
        attempt = current()
        if attempt is not None:
            await attempt.check()
        why = Cause(causation_id=cause) if isinstance(cause, str) else cause
        wish = draft(
            event,
            tenant=self._tenant,
            time=why.time or datetime.now(UTC),
            causation_id=why.causation_id,
            correlation_id=why.correlation_id,
            position=expected.sequence if expected is not None else 0,
            hops=why.hops,
            traceparent=why.traceparent or spans.current(),
        )
        recorded = self._recorded(wish, await self._log.append(wish, expected=expected))
        if attempt is not None:
            attempt.recorded = recorded
        return recorded

    @staticmethod
    def _recorded(wish: Draft, sequence: int) -> Recorded:
        return Recorded(
            sequence=sequence,
            subject=event_subject(wish.tenant, wish.event),
            tenant=wish.tenant,
            event=wish.event,
            id=wish.id,
            time=wish.time,
            causation_id=wish.causation_id,
            correlation_id=wish.correlation_id,
            hops=wish.hops,
            traceparent=wish.traceparent,
        )
