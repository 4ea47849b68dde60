"""What a piece of work is about: said once where it begins, known to every line logged within."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import msgspec

from abaco_proto.envelope import Recorded


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Ids; empty where there is none. The correlation id is that of the chain of events."""

    correlation_id: str = ""
    actor_id: str = ""
    execution_id: str = ""


NOTHING = About()

_now: ContextVar[About] = ContextVar("about", default=NOTHING)


def current() -> About:
    """What the work at hand is about."""
    return _now.get()


@contextmanager
def about(
    *, correlation_id: str = "", actor_id: str = "", execution_id: str = ""
) -> Generator[None, None, None]:
    """Say it for all that is done inside, in tasks that are begun inside as well."""
    what = About(correlation_id=correlation_id, actor_id=actor_id, execution_id=execution_id)
    token = _now.set(what)
    try:
        yield
    finally:
        _now.reset(token)


def about_event(recorded: Recorded) -> AbstractContextManager[None]:
    """The same, of what an event says."""
    return about(
        correlation_id=recorded.correlation_id,
        actor_id=getattr(recorded.event, "actor_id", ""),
        execution_id=getattr(recorded.event, "execution_id", ""),
    )
