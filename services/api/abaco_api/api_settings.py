"""The settings of the api, as one frozen value."""

from typing import Annotated

from msgspec import Meta

from abaco_proto.settings import PostgresDsn, ServiceSettings, Tenant


class ApiSettings(ServiceSettings, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation."""

    postgres_dsn: PostgresDsn = "postgresql://abaco@127.0.0.1:5432/abaco"
    tenant: Tenant = "default"
    api_host: Annotated[str, Meta(description="The address the api listens on.", min_length=1)] = (
        "127.0.0.1"
    )
    api_port: Annotated[int, Meta(description="The port the api listens on.", ge=1, le=65535)] = (
        8000
    )
    init_count: Annotated[
        int, Meta(description="Workers of a new actor that names no min_workers.", ge=0, le=1000)
    ] = 2
    max_workers: Annotated[
        int, Meta(description="Most workers of an actor that names no maximum.", ge=1, le=1000)
    ] = 4
    allow_new_privileges: Annotated[
        bool,
        Meta(
            description="Whether actors may set no_new_privileges to false, so that setuid"
            " programs of their images have the rights of their owner. For all who may register"
            " actors: there are no roles yet."
        ),
    ] = False
    allow_privileged: Annotated[
        bool, Meta(description="Whether actors may have privileged containers.")
    ] = False
    max_followers: Annotated[
        int,
        Meta(description="Readers of live output one process serves at once.", ge=1, le=10_000),
    ] = 200
    max_body_bytes: Annotated[
        int, Meta(description="The longest request body.", ge=1024, le=64 * 1024 * 1024)
    ] = 1024 * 1024
    head_seconds: Annotated[
        float,
        Meta(
            description="How long the head of a request may take, from the connection or its "
            "first byte.",
            ge=0.1,
            le=3600,
        ),
    ] = 10.0
    body_seconds: Annotated[
        float, Meta(description="How long the body of a request may take.", ge=0.1, le=3600)
    ] = 60.0
    body_min_bytes_per_second: Annotated[
        int,
        Meta(
            description="A body that comes slower, over 5 seconds, is ended; 0 is no least rate.",
            ge=0,
            le=1024 * 1024,
        ),
    ] = 500
    max_uploads: Annotated[
        int,
        Meta(
            description="Requests whose bodies are not whole yet; of more, the one that has been "
            "quiet for longest is ended.",
            ge=1,
            le=100_000,
        ),
    ] = 1000
    max_upload_bytes: Annotated[
        int,
        Meta(
            description="The most memory for bodies that are not whole yet; beyond it, the same.",
            ge=1024 * 1024,
            le=64 * 1024 * 1024 * 1024,
        ),
    ] = 64 * 1024 * 1024
    idempotency_seconds: Annotated[
        int,
        Meta(
            description="How long an Idempotency-Key is known after its request.",
            ge=60,
            le=30 * 24 * 60 * 60,
        ),
    ] = 24 * 60 * 60
    max_requests: Annotated[
        int,
        Meta(description="Requests one process has unanswered at once.", ge=1, le=100_000),
    ] = 1000
    max_inbox_messages: Annotated[
        int,
        Meta(description="Messages that may wait in one inbox.", ge=1, le=1_000_000_000),
    ] = 1_000_000
    append_timeout_seconds: Annotated[
        float, Meta(description="How long a command may wait for the log.", gt=0, le=60)
    ] = 1.5
    query_timeout_seconds: Annotated[
        float, Meta(description="How long a query may take in Postgres.", gt=0, le=60)
    ] = 0.8
    read_wait_seconds: Annotated[
        float, Meta(description="How long a query waits for one's own writes.", ge=0, le=60)
    ] = 2.0
    max_lag_events: Annotated[
        int, Meta(description="Events the read models may be behind and count as ready.", ge=0)
    ] = 1000
    max_hops: Annotated[
        int,
        Meta(
            description="Subscriptions between the start of a chain and an event that still "
            "becomes a message; what lies further down is cut off.",
            ge=1,
            le=1000,
        ),
    ] = 8
    max_subscribers: Annotated[
        int, Meta(description="Streams of events one process serves at once.", ge=1, le=100_000)
    ] = 1000
    ring_events: Annotated[
        int, Meta(description="Latest events kept in memory for streams.", ge=256, le=1_000_000)
    ] = 10_000
    ring_bytes: Annotated[
        int,
        Meta(description="The most memory for them.", ge=1024 * 1024, le=4 * 1024 * 1024 * 1024),
    ] = 32 * 1024 * 1024
    stream_heartbeat_seconds: Annotated[
        float, Meta(description="A stream with nothing to say says so as often.", gt=0, le=60)
    ] = 5.0
    stream_write_seconds: Annotated[
        float,
        Meta(
            description="How long the connection of a subscriber, or of a reader of output, may "
            "take nothing.",
            gt=0,
            le=300,
        ),
    ] = 10.0
    max_replay_seconds: Annotated[
        float, Meta(description="How long an answer about the past may take.", gt=0, le=3600)
    ] = 30.0
    max_replays: Annotated[
        int,
        Meta(
            description="Answers from history (as_of, why) one process makes at once; one that "
            "waits for a third of ABACO_MAX_REPLAY_SECONDS gets 429 with Retry-After.",
            ge=1,
            le=1000,
        ),
    ] = 4
