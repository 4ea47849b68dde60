"""The context of a piece of work: the ids in its log lines, and the span that it runs in.

Both are context variables of the current task.

**Log context.** Ids that are added to every log line and span.

**Spans.** The duration of each step of a chain of events, and its parent. An event carries in
``traceparent`` the span that appended it, so the next service continues the trace. Without tracing
(:data:`NO_SPANS`) there are no spans, and the ``traceparent`` of a request is passed on unchanged.
"""

import logging
import re
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

import msgspec

from abaco_proto.envelope import Recorded

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The standard variables: https://opentelemetry.io/docs/specs/otel/protocol/exporter/."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# -- log context -----------------------------------------------------------------------------------


class LogContext(msgspec.Struct, frozen=True, kw_only=True):
    """Ids; empty if there is none. The correlation id is that of the chain of events.

    The other ids are unique within the tenant.
    """

    request_id: str = ""
    tenant: str = ""
    correlation_id: str = ""
    actor_id: str = ""
    execution_id: str = ""


EMPTY = LogContext()

_log_context: ContextVar[LogContext] = ContextVar("log_context", default=EMPTY)


def current_log_context() -> LogContext:
    """Return the context of the current task."""
    return _log_context.get()


@contextmanager
def log_context(
    *,
    request_id: str | None = None,
    tenant: str = "",
    correlation_id: str = "",
    actor_id: str = "",
    execution_id: str = "",
) -> Generator[None, None, None]:
    """Set the context inside the block, and in tasks that start there.

    Without a ``request_id`` that of the context outside stays.
    """
    context = LogContext(
        request_id=_log_context.get().request_id if request_id is None else request_id,
        tenant=tenant,
        correlation_id=correlation_id,
        actor_id=actor_id,
        execution_id=execution_id,
    )
    token = _log_context.set(context)
    try:
        yield
    finally:
        _log_context.reset(token)


def event_context(recorded: Recorded) -> AbstractContextManager[None]:
    """Set the context to the ids of an event."""
    return log_context(
        tenant=recorded.tenant,
        correlation_id=recorded.correlation_id,
        actor_id=getattr(recorded.event, "actor_id", ""),
        execution_id=getattr(recorded.event, "execution_id", ""),
    )


# -- spans -----------------------------------------------------------------------------------------


class Span:
    """A span that has not ended; this one is not recorded."""

    def annotate(self, attributes: Mapping[str, str | int], *, name: str = "") -> None:
        """Add attributes, and set the name if there is a better one."""


NO_SPAN = Span()


class Spans(Protocol):
    """Makes spans."""

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since: datetime | None = None,
        root: bool = False,
    ) -> AbstractContextManager[Span]:
        """Record a span for the duration of the block, or from ``since``.

        Its parent is ``parent``, or else the current span. Without either, it is recorded only if
        it is a ``root``. An error in the block sets its status.
        """
        ...

    def close(self) -> None:
        """Export what is left, for at most a second."""
        ...


class NoSpans:
    """Records no spans."""

    def span(
        self,
        name: str,  # noqa: ARG002
        *,
        parent: str | None = None,
        since: datetime | None = None,  # noqa: ARG002
        root: bool = False,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """See :meth:`Spans.span`."""
        return nullcontext(NO_SPAN) if parent is None else use_traceparent(parent)

    def close(self) -> None:
        """See :meth:`Spans.close`."""


NO_SPANS = NoSpans()


_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)

current_traceparent = _traceparent.get
"""Returns the ``traceparent`` of the current span: events that are appended now carry it."""


@contextmanager
def use_traceparent(traceparent: str, span: Span = NO_SPAN) -> Generator[Span, None, None]:
    """Make a span the current one inside the block."""
    token = _traceparent.set(traceparent)
    try:
        yield span
    finally:
        _traceparent.reset(token)


def valid_traceparent(text: str | None) -> str | None:
    """Return ``text`` if it is a ``traceparent`` (W3C Trace Context, version 00), else None."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def trace_id(traceparent: str | None) -> str:
    """Return the trace id of a ``traceparent``; empty if there is none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else ""


def create_spans(service: str, environ: Mapping[str, str]) -> Spans:
    """Return the spans of a process: not recorded unless an endpoint is configured.

    The OpenTelemetry packages are needed only then: the extra ``otel``.
    """
    configured = any(environ.get(name) for name in ENDPOINTS)
    if not configured or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NO_SPANS
    try:
        from abaco_telemetry.opentelemetry_spans import create_exporting_spans  # noqa: PLC0415 - it may not be installed
    except ImportError as error:
        logger.warning(
            "traces are not exported: %s. Install abaco-telemetry[otel], or unset %s",
            error,
            " and ".join(ENDPOINTS),
        )
        return NO_SPANS
    return create_exporting_spans(service, environ)
