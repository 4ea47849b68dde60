"""A projection, watched: what it takes in is counted, and the last step of a trace is told."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from abaco_projector.adapters.read_model_store import Store
from abaco_projector.app.projection import Item, Projection, Write
from abaco_projector.app.projector_metrics import Metrics
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.output import RecordedOutput
from abaco_telemetry.about import about_event
from abaco_telemetry.spans import Spans


def watched(projection: Projection[Item], metrics: Metrics, spans: Spans) -> Projection[Item]:
    """The same projection; what it does is counted in ``metrics``."""
    name = projection.name

    async def follow(after: int) -> AsyncGenerator[Sequence[Item], None]:
        metrics.began(name, after)
        async with aclosing(projection.follow(after)) as batches:
            async for batch in batches:
                yield batch

    async def watch(batch: Sequence[Item], write: Write) -> None:
        with metrics.batch(name):
            await write()
        metrics.applied(name, len(batch), batch[-1].sequence)
        tell(batch, spans)

    async def poison(store: Store, item: Item, why: str) -> None:
        metrics.refused.labels(name).inc()
        await projection.poison(store, item, why)

    return replace(projection, follow=follow, watch=watch, poison=poison)


def tell(batch: Sequence[Recorded | RecordedOutput], spans: Spans) -> None:
    """The end of each execution is in the rows: the last step, from when it was in the log."""
    for item in batch:
        if isinstance(item, Recorded) and isinstance(item.event, ev.ExecutionFinished):
            step = spans.span("project", parent=item.traceparent, since=item.time)
            with about_event(item), step:
                pass
