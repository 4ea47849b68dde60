"""Everything a route needs, put together once."""

import asyncio
from contextlib import suppress

import msgspec
from starlette.requests import Request

from abaco_api.api_settings import Config
from abaco_api.as_of.as_of_parameter import AS_OF, Replay
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.moment import Past
from abaco_api.commands import parse
from abaco_api.commands.actor_commands import ActorCommands
from abaco_api.commands.actor_directory import Directory
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.execution_control import ExecutionControl
from abaco_api.commands.inbox import Inboxes
from abaco_api.commands.inbox_capacity import Room
from abaco_api.commands.worker_commands import WorkerCommands
from abaco_api.domain.actor_definition import Defaults
from abaco_api.http.api_metrics import Metrics
from abaco_api.http.http_errors import BadParameter
from abaco_api.http.paged_response import LONG_ANSWERS, LONG_OUTPUTS, LongAnswers
from abaco_api.http.request_body import query_parameters
from abaco_api.idempotency.key_index import KeyIndex
from abaco_api.queries.freshness import ALL_ACTORS, Freshness
from abaco_api.queries.read_models import ReadModels
from abaco_api.streams.events.event_feed import Feed
from abaco_api.streams.events.event_stream import Streams
from abaco_api.streams.output.end_watch import Watch
from abaco_api.streams.output.live_output import Live
from abaco_api.streams.output.output_reader import Sources
from abaco_api.subscriptions.dispatcher import Dispatcher
from abaco_jetstream.ports import EventLog, OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import all_events_filter
from abaco_telemetry.spans import NO_SPANS, Spans

AFTER = "Abaco-After"


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one api process."""

    config: Config
    defaults: Defaults
    log: EventLog
    directory: Directory
    actors: ActorCommands
    inbox: Inboxes
    workers: WorkerCommands
    control: ExecutionControl
    models: ReadModels
    live: Live
    long_answers: LongAnswers
    long_outputs: LongAnswers
    freshness: Freshness
    feed: Feed
    streams: Streams
    dispatcher: Dispatcher
    replay: Replay
    metrics: Metrics
    spans: Spans

    async def as_of(self, request: Request, topic: str = ALL_ACTORS) -> ReadModels | Past:
        """What a query is answered from: the read models, or the moment it asks for."""
        text = query_parameters(request).get(AS_OF)
        if text is None:
            await self.fresh(request, topic)
            return self.models
        known_already(request)
        past = await self.replay.at(text)
        request.state.as_of = past.sequence
        return past

    def close(self) -> None:
        """End all streams: the process stops."""
        self.live.close()
        self.feed.close()

    async def known(self, actor_id: str) -> None:
        """Check that there ever was such an actor, for those who do without the read models."""
        try:
            async with asyncio.timeout(self.config.append_timeout_seconds):
                await self.directory.known(actor_id)
        except TimeoutError:
            raise Unavailable("the definitions are still being read") from None

    async def fresh(self, request: Request, topic: str = ALL_ACTORS) -> None:
        """Wait until the read models show what the client may know of a topic already."""
        header = request.headers.get(AFTER)
        if header is None:
            await self.freshness.reach(topic)
            return
        after = known_already(request)
        if after > self.freshness.position:
            await self._check_written(after)
        await self.freshness.reach(topic, after)

    async def _check_written(self, after: int) -> None:
        """Refuse to wait for what was never written; without the log that cannot be told."""
        with suppress(Unavailable):
            last = await self.log.last(all_events_filter())
            head = last.sequence if last is not None else 0
            if after > head:
                raise BadParameter(AFTER, f"{after}, but the log ends at {head}")


def known_already(request: Request) -> int:
    """The sequence that a client says it knows of, 0 when it says nothing."""
    return parse.whole_number(AFTER, request.headers.get(AFTER, "0"), least=0, most=10**18 - 1)


def assemble(
    config: Config,
    log: EventLog,
    outputs: OutputLog,
    *,
    metrics: Metrics | None = None,
    spans: Spans = NO_SPANS,
) -> Service:
    """The service over a log and the output stream; nothing is opened or started."""
    metrics = metrics or Metrics()
    tenant = config.tenant
    directory = Directory(log, tenant)
    keys = KeyIndex(log, config.idempotency_seconds)
    handler = CommandHandler(log, tenant, keys, config.append_timeout_seconds)
    models = ReadModels(config.postgres_dsn, tenant, config.query_timeout_seconds, metrics.query)
    sources = Sources(
        outputs=outputs,
        models=models,
        watch=Watch(models.ended),
        tenant=tenant,
        patience=config.read_wait_seconds,
    )
    room = Room(log, models, tenant, config.max_inbox_messages)
    inbox = Inboxes(handler, log, directory, tenant, room)
    feed = Feed(log, tenant, max_events=config.ring_events, max_bytes=config.ring_bytes)
    return Service(
        config=config,
        defaults=Defaults(
            init_count=config.init_count,
            max_workers=config.max_workers,
            allow_privileged=config.allow_privileged,
            allow_new_privileges=config.allow_new_privileges,
        ),
        log=log,
        directory=directory,
        actors=ActorCommands(handler, log, directory, tenant),
        inbox=inbox,
        workers=WorkerCommands(handler, log, directory, models, tenant),
        control=ExecutionControl(handler, log, directory, models, tenant),
        models=models,
        live=Live(sources, config.max_followers, config.stream_write_seconds),
        long_answers=_long(LONG_ANSWERS, config),
        long_outputs=_long(LONG_OUTPUTS, config),
        freshness=Freshness(models.checkpoint, config.read_wait_seconds),
        feed=feed,
        streams=Streams(
            feed,
            most=config.max_subscribers,
            heartbeat_seconds=config.stream_heartbeat_seconds,
            write_seconds=config.stream_write_seconds,
        ),
        replay=Replay(
            log,
            models,
            tenant,
            config.max_replay_seconds,
            FoldSlots(config.max_replays, config.max_replay_seconds / 3),
        ),
        dispatcher=Dispatcher(log, feed, inbox, directory, tenant=tenant, max_hops=config.max_hops),
        metrics=metrics,
        spans=spans,
    )


def _long(most: int, config: Config) -> LongAnswers:
    return LongAnswers(
        most=most,
        wait_seconds=config.read_wait_seconds,
        write_seconds=config.stream_write_seconds,
    )


def service(request: Request) -> Service:
    """The service behind a request."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found
