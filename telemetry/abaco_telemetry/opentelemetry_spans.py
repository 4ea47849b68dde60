"""Spans for OpenTelemetry. Only this module imports it, and only if traces are exported."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OpenTelemetrySpan
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from abaco_telemetry.context import (
    NO_SPAN,
    Span,
    current_log_context,
    current_traceparent,
    use_traceparent,
    valid_traceparent,
)

CLOSE_SECONDS = 1.0

KINDS = {"request": SpanKind.SERVER, "schedule": SpanKind.CONSUMER, "run": SpanKind.CONSUMER}

_propagator = TraceContextTextMapPropagator()


class OpenTelemetrySpans:
    """Implements :class:`abaco_telemetry.context.Spans`."""

    def __init__(self, provider: TracerProvider) -> None:
        """Make spans with a provider of this process."""
        self._provider = provider
        self._tracer = provider.get_tracer("abaco")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since: datetime | None = None,
        root: bool = False,
    ) -> Generator[Span, None, None]:
        """See :meth:`abaco_telemetry.context.Spans.span`."""
        traceparent = valid_traceparent(parent or current_traceparent())
        if traceparent is None and not root:
            yield NO_SPAN
            return
        span = self._tracer.start_span(
            name,
            context=_context(traceparent),
            kind=KINDS.get(name, SpanKind.INTERNAL),
            attributes=_context_attributes(),
            start_time=int(since.timestamp() * 1e9) if since is not None else None,
        )
        try:
            with use_traceparent(_traceparent(span), _OpenSpan(span)) as open_span:
                yield open_span
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """See :meth:`abaco_telemetry.context.Spans.close`.

        The exporter retries an unreachable endpoint for ten seconds, whatever timeout it is given.
        """
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class _OpenSpan(Span):
    """A span that has not ended."""

    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span

    def annotate(self, attributes: Mapping[str, str | int], *, name: str = "") -> None:
        self._span.set_attributes(attributes)
        if name:
            self._span.update_name(name)


def create_exporting_spans(service: str, environ: Mapping[str, str]) -> OpenTelemetrySpans:
    """Return spans that are exported in the background, as the variables ``OTEL_*`` configure."""
    name = environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetrySpans(provider)


def _context(traceparent: str | None) -> Context:
    """Return the context of a ``traceparent``; without one, an empty context."""
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return _propagator.extract(carrier, Context())


def _traceparent(span: OpenTelemetrySpan) -> str:
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def _context_attributes() -> dict[str, str]:
    context = current_log_context()
    known = {
        "abaco.request_id": context.request_id,
        "abaco.tenant": context.tenant,
        "abaco.correlation_id": context.correlation_id,
        "abaco.actor_id": context.actor_id,
        "abaco.execution_id": context.execution_id,
    }
    return {name: value for name, value in known.items() if value}
