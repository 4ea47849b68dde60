"""The parts of an api process, and how they are assembled."""

import asyncio
from contextlib import suppress

import msgspec
from starlette.requests import Request

from abaco_api.access.access_commands import AccessCommands
from abaco_api.access.access_control import AccessControl, create_access_control
from abaco_api.access.access_directory import AccessDirectory
from abaco_api.api_errors import BadParameter
from abaco_api.api_settings import ApiSettings
from abaco_api.as_of.as_of_parameter import AS_OF, PastFinder, Stores
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.past_read_models import PastReadModels
from abaco_api.commands.actor_commands import ActorCommands
from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.execution_control import ExecutionControl
from abaco_api.commands.idempotency import KeyIndex
from abaco_api.commands.inbox import InboxCapacity, Inboxes
from abaco_api.commands.worker_commands import WorkerCommands
from abaco_api.domain.actor_definition import Defaults
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.paged_response import LONG_OUTPUTS, LONG_RESPONSES, LongResponses
from abaco_api.http.parameters import query_parameters, whole_number
from abaco_api.queries.freshness import ALL_ACTORS, Freshness
from abaco_api.queries.past_rows import PastRows
from abaco_api.queries.postgres_pool import PostgresPool
from abaco_api.queries.read_models import ReadModels
from abaco_api.queries.why_query import WhyQuery
from abaco_api.streams.events.event_feed import EventFeed
from abaco_api.streams.events.event_stream import EventStreams
from abaco_api.streams.output.end_poller import EndPoller
from abaco_api.streams.output.live_output import LiveOutput
from abaco_api.streams.output.output_reader import OutputSources
from abaco_api.subscriptions.dispatcher import Dispatcher
from abaco_jetstream.ports import EventLog, OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from abaco_telemetry.context import NO_SPANS, Spans

AFTER = "Abaco-After"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one api process."""

    settings: ApiSettings
    defaults: Defaults
    log: EventLog
    directory: ActorDirectory
    actors: ActorCommands
    inbox: Inboxes
    workers: WorkerCommands
    control: ExecutionControl
    models: ReadModels
    live: LiveOutput
    long_responses: LongResponses
    long_outputs: LongResponses
    freshness: Freshness
    feed: EventFeed
    streams: EventStreams
    dispatcher: Dispatcher
    past: PastFinder
    why: WhyQuery
    metrics: ApiMetrics
    spans: Spans
    access: AccessControl
    access_commands: AccessCommands

    async def as_of(self, request: Request, topic: str = ALL_ACTORS) -> ReadModels | PastReadModels:
        """What a query reads: the read models, or the moment of the past in ``as_of``."""
        text = query_parameters(request).get(AS_OF)
        if text is None:
            await self.fresh(request, topic)
            return self.models
        after_header(request)
        past = await self.past.at(text)
        request.state.as_of = past.sequence
        return past

    def close(self) -> None:
        """End all streams before the process stops."""
        self.live.close()
        self.feed.close()

    async def check_registered(self, actor_id: str) -> None:
        """Check that an actor was registered, deleted or not, without the read models."""
        try:
            async with asyncio.timeout(self.settings.append_timeout_seconds):
                await self.directory.check_registered(actor_id)
        except TimeoutError:
            raise Unavailable("the definitions are still being read") from None

    async def fresh(self, request: Request, topic: str = ALL_ACTORS) -> None:
        """Wait until the read models hold all that the client may know about a topic."""
        header = request.headers.get(AFTER)
        if header is None:
            await self.freshness.reach(topic)
            return
        after = after_header(request)
        if after > self.freshness.position:
            await self._check_written(after)
        await self.freshness.reach(topic, after)

    async def _check_written(self, after: int) -> None:
        """Refuse a sequence that is not in the log; pass it if the log is unavailable."""
        with suppress(Unavailable):
            last = await self.log.last(all_events_filter())
            head = last.sequence if last is not None else 0
            if after > head:
                raise BadParameter(AFTER, f"{after}, but the log ends at {head}")


def after_header(request: Request) -> int:
    """The sequence in the header ``Abaco-After``; 0 without it. Raises ``BadParameter``."""
    return whole_number(AFTER, request.headers.get(AFTER, "0"), least=0, most=10**18 - 1)


def assemble(
    settings: ApiSettings,
    log: EventLog,
    outputs: OutputLog,
    *,
    metrics: ApiMetrics | None = None,
    spans: Spans = NO_SPANS,
) -> Service:
    """The service over a log and the output stream; nothing is opened or started."""
    metrics = metrics or ApiMetrics()
    tenant = settings.tenant
    directory = ActorDirectory(log, tenant)
    keys = KeyIndex(log, settings.idempotency_seconds)
    access_directory = AccessDirectory(log, tenant, seconds=settings.append_timeout_seconds)
    access = create_access_control(
        settings, access_directory, lambda reason: metrics.refusals.labels(reason).inc()
    )
    handler = CommandHandler(log, tenant, keys, settings.append_timeout_seconds)
    pool = PostgresPool(settings.postgres_dsn, settings.query_timeout_seconds, metrics.query)
    models = ReadModels(pool, tenant)
    past_rows = PastRows(pool, tenant, settings.max_replay_seconds)
    freshness = Freshness(models.checkpoint, settings.read_wait_seconds)
    past = PastFinder(
        log,
        Stores(models, past_rows, freshness),
        tenant,
        seconds=settings.max_replay_seconds,
        slots=FoldSlots(settings.max_replays, settings.max_replay_seconds / 3),
    )
    sources = OutputSources(
        outputs=outputs,
        models=models,
        watch=EndPoller(models.ended),
        tenant=tenant,
        output_timeout=settings.read_wait_seconds,
    )
    capacity = InboxCapacity(log, models, tenant, settings.max_inbox_messages)
    inbox = Inboxes(handler, log, directory, tenant, capacity)
    feed = EventFeed(log, tenant, max_events=settings.ring_events, max_bytes=settings.ring_bytes)
    return Service(
        settings=settings,
        defaults=Defaults(
            init_count=settings.init_count,
            max_workers=settings.max_workers,
            allow_privileged=settings.allow_privileged,
            allow_new_privileges=settings.allow_new_privileges,
        ),
        log=log,
        directory=directory,
        actors=ActorCommands(handler, log, directory, tenant, access.check_definition),
        inbox=inbox,
        workers=WorkerCommands(handler, log, directory, models, tenant),
        control=ExecutionControl(handler, log, directory, models, tenant),
        models=models,
        live=LiveOutput(sources, settings.max_followers, settings.stream_write_seconds),
        long_responses=_long(LONG_RESPONSES, settings),
        long_outputs=_long(LONG_OUTPUTS, settings),
        freshness=freshness,
        feed=feed,
        streams=EventStreams(
            feed,
            most=settings.max_subscribers,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            write_seconds=settings.stream_write_seconds,
        ),
        past=past,
        why=WhyQuery(past, past_rows, models, tenant),
        dispatcher=Dispatcher(
            log, feed, inbox, directory, tenant=tenant, max_hops=settings.max_hops
        ),
        metrics=metrics,
        spans=spans,
        access=access,
        access_commands=AccessCommands(handler, directory, access_directory, tenant),
    )


def _long(most: int, settings: ApiSettings) -> LongResponses:
    return LongResponses(
        most=most,
        wait_seconds=settings.read_wait_seconds,
        write_seconds=settings.stream_write_seconds,
    )
