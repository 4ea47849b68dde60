"""The parts of an api process, and how they are assembled.

A process serves all tenants. What one tenant is served with is in its :class:`Service`: every fold,
cache and query in it is of that tenant alone, and there is no way from it to another. What tenants
share is in :class:`Tenants`: the log, the pool of connections, the limits of the process, and one
consumer for each kind of fold, whatever the number of tenants.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request

from abaco_api.access.access_commands import AccessCommands
from abaco_api.access.access_control import AccessControl, create_access_control
from abaco_api.access.access_directory import AccessDirectories, AccessDirectory
from abaco_api.access.nonce_commands import NonceCommands
from abaco_api.api_errors import BadParameter
from abaco_api.api_settings import ApiSettings
from abaco_api.as_of.as_of_parameter import AS_OF, PastFinder, Stores
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.past_read_models import PastReadModels
from abaco_api.commands.actor_commands import ActorCommands
from abaco_api.commands.actor_directory import ActorDirectories, ActorDirectory
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.execution_control import ExecutionControl
from abaco_api.commands.idempotency import KeyIndex
from abaco_api.commands.inbox import InboxCapacity, Inboxes
from abaco_api.commands.worker_commands import WorkerCommands
from abaco_api.domain.actor_definition import Defaults
from abaco_api.domain.quotas import RequestRate
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.paged_response import LONG_OUTPUTS, LONG_RESPONSES, LongResponses
from abaco_api.http.parameters import query_parameters, whole_number
from abaco_api.queries.freshness import ALL_ACTORS, CheckpointPoller, Freshness
from abaco_api.queries.past_rows import PastRows
from abaco_api.queries.postgres_pool import PostgresPool
from abaco_api.queries.read_models import ReadModels
from abaco_api.queries.why_query import WhyQuery
from abaco_api.streams.events.event_feed import EventFeed, EventFeeds
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
    """What one tenant is served with."""

    settings: ApiSettings
    defaults: Defaults
    log: EventLog
    directory: ActorDirectory
    actors: ActorCommands
    inbox: Inboxes
    workers: WorkerCommands
    control: ExecutionControl
    models: ReadModels
    outputs: OutputSources
    live: LiveOutput
    long_responses: LongResponses
    long_outputs: LongResponses
    freshness: Freshness
    feed: EventFeed
    streams: EventStreams
    dispatcher: Dispatcher
    past: PastFinder
    why: WhyQuery
    access: AccessControl
    access_directory: AccessDirectory
    access_commands: AccessCommands
    nonces: NonceCommands
    requests: RequestRate

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


class Tenants:
    """The services of all tenants of one api process, and what they share."""

    def __init__(
        self,
        settings: ApiSettings,
        log: EventLog,
        outputs: OutputLog,
        metrics: ApiMetrics,
        spans: Spans,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.spans = spans
        self.pool = PostgresPool(
            settings.postgres_dsn, settings.query_timeout_seconds, metrics.query
        )
        seconds = settings.append_timeout_seconds
        access_directories = AccessDirectories(log, seconds=seconds)
        self.access = create_access_control(
            settings, access_directories, lambda reason: metrics.refusals.labels(reason).inc()
        )
        self.live = LiveOutput(settings.max_followers, settings.stream_write_seconds)
        self.streams = EventStreams(
            most=settings.max_subscribers,
            heartbeat_seconds=settings.stream_heartbeat_seconds,
            write_seconds=settings.stream_write_seconds,
        )
        self._log = log
        self._outputs = outputs
        self._directories = ActorDirectories(log)
        self._access_directories = access_directories
        self._feeds = EventFeeds(
            log, max_events=settings.ring_events, max_bytes=settings.ring_bytes
        )
        self._keys = KeyIndex(log, settings.idempotency_seconds)
        checkpoint = ReadModels(self.pool, settings.tenant).checkpoint
        self._checkpoint = CheckpointPoller(checkpoint, settings.read_wait_seconds)
        self._slots = FoldSlots(settings.max_replays, settings.max_replay_seconds / 3)
        self._long_responses = _long(LONG_RESPONSES, settings)
        self._long_outputs = _long(LONG_OUTPUTS, settings)
        self._services: dict[str, Service] = {}

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """What runs as long as the process, once the log is connected."""
        return (
            self._directories.run,
            self._access_directories.run,
            self._feeds.run,
            self._dispatch,
        )

    @property
    def dropped_chains(self) -> int:
        """How many events were not delivered because their chains are too long."""
        return sum(service.dispatcher.dropped_chains for service in self._services.values())

    def service(self, tenant: str) -> Service:
        """What a tenant is served with."""
        service = self._services.get(tenant)
        if service is None:
            service = self._services[tenant] = self._assemble(tenant)
        return service

    def close(self) -> None:
        """End all streams before the process stops."""
        self.live.close()
        self._feeds.close()

    async def _dispatch(self) -> None:
        """Deliver the events of each tenant from its first subscription on, without end."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tenant = await self._directories.subscribed.get()
                tasks.create_task(self.service(tenant).dispatcher.run())

    def _assemble(self, tenant: str) -> Service:
        settings, log = self.settings, self._log
        access_directory = self._access_directories.of(tenant)
        directory = self._directories.of(tenant)
        handler = CommandHandler(log, tenant, self._keys, settings.append_timeout_seconds)
        models = ReadModels(self.pool, tenant)
        past_rows = PastRows(self.pool, tenant, settings.max_replay_seconds)
        past = PastFinder(
            log,
            Stores(models, past_rows, self._checkpoint),
            tenant,
            seconds=settings.max_replay_seconds,
            slots=self._slots,
        )
        capacity = InboxCapacity(log, models, tenant, settings.max_inbox_messages)
        inbox = Inboxes(handler, log, directory, tenant, capacity)
        feed = self._feeds.of(tenant)
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
            actors=ActorCommands(
                handler,
                log,
                directory,
                tenant,
                most=settings.max_tenant_actors,
                check=self.access.check_definition,
            ),
            inbox=inbox,
            workers=WorkerCommands(handler, log, directory, models, tenant),
            control=ExecutionControl(handler, log, directory, models, tenant),
            models=models,
            outputs=OutputSources(
                outputs=self._outputs,
                models=models,
                watch=EndPoller(models.ended),
                tenant=tenant,
                output_timeout=settings.read_wait_seconds,
            ),
            live=self.live,
            long_responses=self._long_responses,
            long_outputs=self._long_outputs,
            freshness=Freshness(self._checkpoint),
            feed=feed,
            streams=self.streams,
            past=past,
            why=WhyQuery(past, past_rows, models, tenant),
            dispatcher=Dispatcher(
                log,
                feed,
                inbox,
                directory,
                self.access.may_receive,
                tenant=tenant,
                max_hops=settings.max_hops,
            ),
            access=self.access,
            access_directory=access_directory,
            access_commands=AccessCommands(handler, directory, access_directory, tenant),
            nonces=NonceCommands(handler, log, directory, access_directory, tenant),
            requests=RequestRate(settings.max_tenant_requests_per_second),
        )


def assemble(
    settings: ApiSettings,
    log: EventLog,
    outputs: OutputLog,
    *,
    metrics: ApiMetrics | None = None,
    spans: Spans = NO_SPANS,
) -> Tenants:
    """The services over a log and the output stream; nothing is opened or started."""
    return Tenants(settings, log, outputs, metrics or ApiMetrics(), spans)


def _long(most: int, settings: ApiSettings) -> LongResponses:
    return LongResponses(
        most=most,
        wait_seconds=settings.read_wait_seconds,
        write_seconds=settings.stream_write_seconds,
    )
