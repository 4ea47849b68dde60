"""One message, sent with and without a trace of its sender's, through all four services."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import assemble
from abaco_api.http.application import create_app
from abaco_projector.app import projection
from abaco_projector.app.instrumented_projection import instrumented
from abaco_projector.app.projector_metrics import ProjectorMetrics
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_scheduler.app.scheduler_loop import Scheduler
from abaco_scheduler.app.snapshot_manager import SnapshotManager
from abaco_scheduler.domain.policy import Policy
from abaco_telemetry.context import trace_id
from abaco_telemetry.opentelemetry_spans import OpenTelemetrySpans
from fake_engine import IMAGE, Program, message
from fakes import InMemorySnapshots
from worker_stage import Stage

SENDERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Rows:
    """A store that takes everything."""

    async def apply_events(self, batch: Sequence[Recorded], *, after: int) -> None:
        pass


class System:
    """All four services over one log in memory."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._api = assemble(ApiSettings(), stage.log, stage.outputs, spans=stage.spans)
        app = create_app(self._api)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        loops = [loop() for loop in self._api.loops]
        works = [*loops, self._scheduler().run(), self._projector()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            async with self._stage.service(), self._http:
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _scheduler(self) -> Scheduler:
        connection: Any = SimpleNamespace(connected_since=0.0)
        log, heartbeats, spans = self._stage.log, self._stage.heartbeats, self._stage.spans
        snapshots = SnapshotManager(InMemorySnapshots(), log, code_digest="this")
        return Scheduler(
            log, heartbeats, connection, Policy(), "default", snapshots=snapshots, spans=spans
        )

    async def _projector(self) -> None:
        store: Any = Rows()
        events = instrumented(
            projection.events_projection(self._stage.log), ProjectorMetrics(), self._stage.spans
        )
        await projection.project(events, store, 100, 0)

    async def send(self, **headers: str) -> None:
        """An actor, and one message to its end."""
        await self._http.post("/actors", json={"image": IMAGE, "name": "foo", "min_workers": 1})
        await self._stage.until_seen(ev.WorkerReady)
        body = {"message": message(Program(prints="hi"))}
        answer = await self._http.post("/actors/foo_0/messages", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        await self._stage.until_seen(ev.ExecutionFinished)

    async def probe(self) -> None:
        """What is asked of the api all the time."""
        for path in ("/healthz", "/metrics"):
            assert (await self._http.get(path)).status_code == 200


@pytest.fixture(params=[False, True], ids=["cold", "pool"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(folder=tmp_path if request.param else None)
    yield stage
    stage.kill()


@pytest.fixture
def told(stage: Stage) -> InMemorySpanExporter:
    """What the services tell of their steps."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stage.spans = OpenTelemetrySpans(provider)
    return exporter


def chain(stage: Stage) -> list[Recorded]:
    """The events of the one execution."""
    return [r for r in stage.log.events if getattr(r.event, "execution_id", "") == "foo_0_exc_0"]


@pytest.mark.parametrize("headers", [{}, {"traceparent": SENDERS}])
async def test_a_message_is_one_connected_trace(
    stage: Stage, told: InMemorySpanExporter, headers: dict[str, str]
) -> None:
    def of_the_message() -> list[ReadableSpan]:
        spans = told.get_finished_spans()
        [first] = [s for s in spans if s.name == "POST /actors/{actor_id}/messages"]
        return [s for s in spans if s.context.trace_id == first.context.trace_id]

    system = System(stage)
    async with system.running():
        await system.send(**headers)
        await stage.until(lambda: any(span.name == "project" for span in of_the_message()))
    spans = {span.context.span_id: span for span in of_the_message()}

    def path(span: ReadableSpan) -> tuple[str, ...]:
        """Of which steps it is a part, the outermost first."""
        inside = span.parent is not None and span.parent.span_id in spans
        outer = path(spans[span.parent.span_id]) if inside and span.parent else ()
        return (*outer, span.name)

    run = ("POST /actors/{actor_id}/messages", "schedule", "run")
    expected = [run[:1], run[:2], run, (*run, "project")]
    expected += [(*run, name) for name in ("fetch", "prepare", "launch", "output")]
    assert Counter(map(path, spans.values())) == Counter([*expected, *2 * [(*run, "report")]])
    traces = {trace_id(recorded.traceparent) for recorded in chain(stage)}
    assert traces == {trace_id(SENDERS)} if headers else len(traces) == 1
    for span in spans.values():
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.start_time <= span.end_time
    [scheduled] = [s for s in spans.values() if s.name == "schedule"]
    received = chain(stage)[0].time
    assert scheduled.start_time == int(received.timestamp() * 1e9)


async def test_only_requests_and_what_comes_of_them_are_told(
    stage: Stage, told: InMemorySpanExporter
) -> None:
    """Heartbeats, hosts and workers belong to no request, and probes are none of any use."""
    system = System(stage)
    async with system.running():
        await system.send()
        await system.probe()
    roots = {span.name for span in told.get_finished_spans() if span.parent is None}
    assert roots == {"POST /actors", "POST /actors/{actor_id}/messages"}


async def test_where_nobody_looks_the_senders_trace_goes_through_unchanged(stage: Stage) -> None:
    system = System(stage)
    async with system.running():
        await system.send(traceparent=SENDERS)
    kinds = {type(recorded.event): recorded.traceparent for recorded in chain(stage)}
    assert kinds == {
        ev.MessageReceived: SENDERS,
        ev.ExecutionAssigned: SENDERS,
        ev.ExecutionStarted: SENDERS,
        ev.ExecutionFinished: SENDERS,
    }
