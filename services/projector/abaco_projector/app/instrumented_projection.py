"""A projection with metrics and traces."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from abaco_projector.adapters.read_model_store import ReadModelStore
from abaco_projector.app.projection import Item, Projection, Write
from abaco_projector.app.projector_metrics import ProjectorMetrics
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.output import RecordedOutput
from abaco_telemetry.context import Spans, event_context


def instrumented(
    projection: Projection[Item], metrics: ProjectorMetrics, spans: Spans
) -> Projection[Item]:
    """Return the same projection, counted in ``metrics`` and traced in ``spans``."""
    name = projection.name

    async def follow(after: int) -> AsyncGenerator[Sequence[Item], None]:
        metrics.resumed(name, after)
        async with aclosing(projection.follow(after)) as batches:
            async for batch in batches:
                yield batch

    async def instrument(batch: Sequence[Item], write: Write) -> None:
        with metrics.time_batch(name):
            await write()
        metrics.applied(name, len(batch), batch[-1].sequence)
        record_spans(batch, spans)

    async def poison(store: ReadModelStore, item: Item, reason: str) -> None:
        metrics.refused.labels(name).inc()
        await projection.poison(store, item, reason)

    return replace(projection, follow=follow, instrument=instrument, poison=poison)


def record_spans(batch: Sequence[Recorded | RecordedOutput], spans: Spans) -> None:
    """Record the last span of each trace: from the append of ``finished`` until it is in the
    rows.
    """
    for item in batch:
        if isinstance(item, Recorded) and isinstance(item.event, ev.ExecutionFinished):
            span = spans.span("project", parent=item.traceparent, since=item.time)
            with event_context(item), span:
                pass
