"""Spans: how long each step of a chain took, and which step it was part of.

Theory: an event carries in ``traceparent`` the step that appended it, so that the next service
goes on from there. Within a process the step at hand is known to the context. Where nobody looks
(:data:`OFF`) there are no steps, and the ``traceparent`` of whoever asked is passed on as it came.
"""

import logging
import re
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where spans go, as everywhere: https://opentelemetry.io/docs/specs/otel/protocol/exporter/."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_now: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Step:
    """A step that is under way; this one is told to nobody."""

    def note(self, facts: Mapping[str, str | int], *, name: str = "") -> None:
        """Add what has become known meanwhile: facts, and a better name."""


NO_STEP = Step()


class Spans(Protocol):
    """Where steps are told to."""

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since: datetime | None = None,
        first: bool = False,
    ) -> AbstractContextManager[Step]:
        """A step that lasts as long as the block, or began earlier: ``since``.

        It is a part of ``parent``, or else of the step at hand. Where there is neither, it is the
        ``first`` of a trace, or none at all. An error out of the block is noted.
        """
        ...

    def close(self) -> None:
        """Send what was not sent yet, without waiting long."""
        ...


class Off:
    """Nobody looks."""

    def span(
        self,
        name: str,  # noqa: ARG002
        *,
        parent: str | None = None,
        since: datetime | None = None,  # noqa: ARG002
        first: bool = False,  # noqa: ARG002
    ) -> AbstractContextManager[Step]:
        """See :meth:`Spans.span`."""
        return nullcontext(NO_STEP) if parent is None else within(parent)

    def close(self) -> None:
        """See :meth:`Spans.close`."""


OFF = Off()


def current() -> str | None:
    """The ``traceparent`` of the step at hand: what is appended now is a part of it."""
    return _now.get()


@contextmanager
def within(traceparent: str, step: Step = NO_STEP) -> Generator[Step, None, None]:
    """Be in a step while inside."""
    token = _now.set(traceparent)
    try:
        yield step
    finally:
        _now.reset(token)


def valid(text: str | None) -> str | None:
    """A ``traceparent`` from outside, if it is one (W3C Trace Context, version 00)."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def trace_id(traceparent: str | None) -> str:
    """The trace that a ``traceparent`` belongs to; empty for none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else ""


def spans(service: str, environ: Mapping[str, str]) -> Spans:
    """Where the steps of a process go: nowhere, if the environment names no place.

    The packages that speak OpenTelemetry are wanted only then: the extra ``otel``.
    """
    wanted = any(environ.get(name) for name in ENDPOINTS)
    if not wanted or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return OFF
    try:
        from abaco_telemetry.otel import exporting  # noqa: PLC0415 - it may not be installed
    except ImportError as error:
        logger.warning("no traces: %s; install abaco-telemetry[otel]", error)
        return OFF
    return exporting(service, environ)
