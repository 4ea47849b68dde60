"""The log context: ids that are added to every log line and span of a piece of work."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import msgspec

from abaco_proto.envelope import Recorded


class LogContext(msgspec.Struct, frozen=True, kw_only=True):
    """Ids; empty if there is none. The correlation id is that of the chain of events."""

    correlation_id: str = ""
    actor_id: str = ""
    execution_id: str = ""


EMPTY = LogContext()

_current: ContextVar[LogContext] = ContextVar("log_context", default=EMPTY)


def current() -> LogContext:
    """Return the context of the current task."""
    return _current.get()


@contextmanager
def log_context(
    *, correlation_id: str = "", actor_id: str = "", execution_id: str = ""
) -> Generator[None, None, None]:
    """Set the context inside the block, and in tasks that start there."""
    context = LogContext(
        correlation_id=correlation_id, actor_id=actor_id, execution_id=execution_id
    )
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def event_context(recorded: Recorded) -> AbstractContextManager[None]:
    """Set the context to the ids of an event."""
    return log_context(
        correlation_id=recorded.correlation_id,
        actor_id=getattr(recorded.event, "actor_id", ""),
        execution_id=getattr(recorded.event, "execution_id", ""),
    )
