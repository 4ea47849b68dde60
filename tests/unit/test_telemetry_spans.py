"""Spans: off, and exported to OpenTelemetry."""

import logging
import os
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from abaco_telemetry.context import (
    NO_SPANS,
    create_spans,
    current_traceparent,
    log_context,
    trace_id,
    use_traceparent,
    valid_traceparent,
)
from abaco_telemetry.opentelemetry_spans import OpenTelemetrySpans

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CLOSE_LIMIT_SECONDS = 5.0
"""Much longer than it should take, and much shorter than the exporter's own ten."""

UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def on(exported: InMemorySpanExporter) -> OpenTelemetrySpans:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return OpenTelemetrySpans(provider)


def test_off_passes_on_what_came() -> None:
    with NO_SPANS.span("run", parent=TRACEPARENT) as open_span:
        open_span.annotate({"a": 1}, name="b")
        with NO_SPANS.span("report"):
            assert current_traceparent() == TRACEPARENT
    with NO_SPANS.span("request", root=True):
        assert current_traceparent() is None


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "00-" + "0" * 52, TRACEPARENT + "x", TRACEPARENT + "\r\nX: y"),
        *(TRACEPARENT.upper(), f"ff{TRACEPARENT[2:]}", TRACEPARENT.replace(TRACE, "0" * 32)),
    ],
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    assert valid_traceparent(text) is None
    assert trace_id(text) == ""
    assert valid_traceparent(TRACEPARENT) == TRACEPARENT


def test_spans_have_parents(on: OpenTelemetrySpans, exported: InMemorySpanExporter) -> None:
    begin = datetime.now(UTC) - timedelta(seconds=5)
    with log_context(execution_id="foo_0_exc_0"), on.span("run", parent=TRACEPARENT, since=begin):
        between = current_traceparent()
        with on.span("report"):
            pass
    inner, outer = exported.get_finished_spans()
    assert (inner.name, outer.name) == ("report", "run")
    assert trace_id(between) == TRACE
    assert f"{outer.context.trace_id:032x}" == TRACE
    assert inner.parent is not None
    assert outer.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert f"{outer.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert outer.end_time is not None
    assert outer.start_time is not None
    assert outer.end_time - outer.start_time >= 5e9
    assert outer.attributes == {"abaco.execution_id": "foo_0_exc_0"}


def test_only_a_root_span_starts_a_trace(
    on: OpenTelemetrySpans, exported: InMemorySpanExporter
) -> None:
    with on.span("report") as open_span:
        open_span.annotate({})
        assert current_traceparent() is None
    with on.span("request", root=True) as open_span:
        open_span.annotate({"status": 200}, name="POST /x")
        assert valid_traceparent(current_traceparent())
    [span] = exported.get_finished_spans()
    assert (span.name, span.attributes) == ("POST /x", {"status": 200})


def test_the_parent_decides_whether_a_span_is_exported(
    on: OpenTelemetrySpans, exported: InMemorySpanExporter
) -> None:
    with on.span("run", parent=UNSAMPLED):
        assert trace_id(current_traceparent()) == TRACE
    assert exported.get_finished_spans() == ()


def test_an_error_is_noted_by_its_kind(
    on: OpenTelemetrySpans, exported: InMemorySpanExporter
) -> None:
    with use_traceparent(TRACEPARENT), pytest.raises(ValueError, match="secret"), on.span("run"):
        raise ValueError("secret")
    [span] = exported.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError"
    assert not span.events


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_SDK_DISABLED": "true"}]
)
def test_it_is_off_without_an_endpoint(environ: dict[str, str]) -> None:
    assert create_spans("abaco-api", environ) is NO_SPANS


def test_without_the_packages_it_is_off_and_logs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "abaco_telemetry.opentelemetry_spans", None)
    with caplog.at_level(logging.WARNING):
        assert (
            create_spans("abaco-api", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
            is NO_SPANS
        )
    assert "[otel]" in caplog.text


def test_an_unreachable_endpoint_does_not_delay_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    before = set(threading.enumerate())
    found = create_spans("abaco-api", os.environ)
    assert isinstance(found, OpenTelemetrySpans)
    with found.span("request", root=True):
        pass
    began = time.monotonic()
    found.close()
    assert time.monotonic() - began < CLOSE_LIMIT_SECONDS
    for left in set(threading.enumerate()) - before:
        left.join()  # it draws random pauses, which no other test may see
