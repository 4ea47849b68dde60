"""Spans to OpenTelemetry. Only this module imports it, and only where traces are wanted."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from abaco_telemetry import about
from abaco_telemetry.spans import NO_STEP, Step, current, valid, within

CLOSE_SECONDS = 1.0

KINDS = {"request": SpanKind.SERVER, "schedule": SpanKind.CONSUMER, "run": SpanKind.CONSUMER}

_propagator = TraceContextTextMapPropagator()


class OpenTelemetrySpans:
    """Implements :class:`abaco_telemetry.spans.Spans`."""

    def __init__(self, provider: TracerProvider) -> None:
        """Spans by way of a provider, which is this process' own."""
        self._provider = provider
        self._tracer = provider.get_tracer("abaco")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        since: datetime | None = None,
        first: bool = False,
    ) -> Generator[Step, None, None]:
        """See :meth:`abaco_telemetry.spans.Spans.span`."""
        whole = valid(parent or current())
        if whole is None and not first:
            yield NO_STEP
            return
        span = self._tracer.start_span(
            name,
            context=_context(whole),
            kind=KINDS.get(name, SpanKind.INTERNAL),
            attributes=_about(),
            start_time=int(since.timestamp() * 1e9) if since is not None else None,
        )
        try:
            with within(_traceparent(span), _Step(span)) as step:
                yield step
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def close(self) -> None:
        """See :meth:`abaco_telemetry.spans.Spans.close`.

        An exporter tries for ten seconds to reach who is not there, whatever time it is given.
        """
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class _Step(Step):
    """A span that is under way."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def note(self, facts: Mapping[str, str | int], *, name: str = "") -> None:
        self._span.set_attributes(facts)
        if name:
            self._span.update_name(name)


def exporting(service: str, environ: Mapping[str, str]) -> OpenTelemetrySpans:
    """Spans to where the variables ``OTEL_*`` say, in the background."""
    name = environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetrySpans(provider)


def _context(traceparent: str | None) -> Context:
    """The step that a ``traceparent`` names; of its own accord a span is in none."""
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return _propagator.extract(carrier, Context())


def _traceparent(span: Span) -> str:
    found = span.get_span_context()
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def _about() -> dict[str, str]:
    what = about.current()
    known = {
        "abaco.correlation_id": what.correlation_id,
        "abaco.actor_id": what.actor_id,
        "abaco.execution_id": what.execution_id,
    }
    return {name: value for name, value in known.items() if value}
