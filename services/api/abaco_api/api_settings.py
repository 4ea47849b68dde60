"""The settings of the api, as one frozen value."""

from typing import Annotated, Literal

from msgspec import Meta

from abaco_api.access.domain.rules import Published
from abaco_proto.settings import (
    AllowNewPrivileges,
    AllowPrivileged,
    PostgresDsn,
    ServiceSettings,
    Tenant,
)


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
    auth: Annotated[
        Literal["off", "on"],
        Meta(
            description="Whether requests need a credential: docs/how-to/put-it-on-a-network.md."
            " With off, everybody who reaches the api may do everything."
        ),
    ] = "off"
    auth_off_anywhere: Annotated[
        bool,
        Meta(
            description="Whether ABACO_AUTH may be off although the api is reachable from other"
            " machines."
        ),
    ] = False
    auth_issuers: Annotated[
        str,
        Meta(
            description="The issuers of JWTs that are accepted, as JSON:"
            " docs/reference/access.md. Empty: only API tokens."
        ),
    ] = ""
    auth_failures_per_minute: Annotated[
        int,
        Meta(
            description="Invalid credentials that one address may send a minute; beyond it, 429.",
            ge=1,
            le=100_000,
        ),
    ] = 60
    published_host: Annotated[
        str,
        Meta(
            description="The address at which a proxy publishes the api, if it is another one than"
            " ABACO_API_HOST."
        ),
    ] = ""
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Networks of proxies, separated by commas. Of a request from one of them,"
            " the last address in X-Forwarded-For is the client's."
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Meta(
            description="Origins whose pages may call the api from a browser, separated by commas:"
            " https://abaco.example.org. There is no wildcard."
        ),
    ] = ""
    hsts_seconds: Annotated[
        int,
        Meta(
            description="Seconds in the header Strict-Transport-Security; 0 is none. Set it only if"
            " all clients reach the api over TLS.",
            ge=0,
            le=10 * 365 * 24 * 60 * 60,
        ),
    ] = 0
    publish_metrics: Annotated[
        Published,
        Meta(
            description="Who may read /metrics: everybody, who has a credential with one of its"
            " roles, or nobody."
        ),
    ] = "authenticated"
    publish_readiness: Annotated[
        Published,
        Meta(
            description="Who may read in the answer of /readyz which part does not work; its status"
            " is for everybody."
        ),
    ] = "authenticated"
    publish_descriptions: Annotated[
        Published, Meta(description="Who may read /openapi.json and /asyncapi.json.")
    ] = "public"
    init_count: Annotated[
        int, Meta(description="min_workers of a new actor that sets none.", ge=0, le=1000)
    ] = 2
    max_workers: Annotated[
        int, Meta(description="max_workers of an actor that sets none.", ge=1, le=1000)
    ] = 4
    allow_new_privileges: AllowNewPrivileges = False
    allow_privileged: AllowPrivileged = False
    max_followers: Annotated[
        int,
        Meta(description="Maximum readers of live output per process.", ge=1, le=10_000),
    ] = 200
    max_body_bytes: Annotated[
        int, Meta(description="Maximum bytes of a request body.", ge=1024, le=64 * 1024 * 1024)
    ] = 1024 * 1024
    head_seconds: Annotated[
        float,
        Meta(
            description="Seconds within which the head of a request must arrive, from the "
            "connection or its first byte.",
            ge=0.1,
            le=3600,
        ),
    ] = 10.0
    body_seconds: Annotated[
        float,
        Meta(
            description="Seconds within which the body of a request must arrive.", ge=0.1, le=3600
        ),
    ] = 60.0
    body_min_bytes_per_second: Annotated[
        int,
        Meta(
            description="Minimum rate of a body, over 5 seconds; a slower one is ended; 0 is none.",
            ge=0,
            le=1024 * 1024,
        ),
    ] = 500
    max_uploads: Annotated[
        int,
        Meta(
            description="Maximum requests with incomplete bodies; beyond it, the one that has "
            "received nothing for longest is ended.",
            ge=1,
            le=100_000,
        ),
    ] = 1000
    max_upload_bytes: Annotated[
        int,
        Meta(
            description="Maximum bytes of incomplete bodies; beyond it, the same.",
            ge=1024 * 1024,
            le=64 * 1024 * 1024 * 1024,
        ),
    ] = 64 * 1024 * 1024
    idempotency_seconds: Annotated[
        int,
        Meta(
            description="Seconds for which an Idempotency-Key is known after its request.",
            ge=60,
            le=30 * 24 * 60 * 60,
        ),
    ] = 24 * 60 * 60
    max_requests: Annotated[
        int,
        Meta(description="Maximum unanswered requests per process.", ge=1, le=100_000),
    ] = 1000
    max_inbox_messages: Annotated[
        int,
        Meta(description="Maximum waiting messages per inbox.", ge=1, le=1_000_000_000),
    ] = 1_000_000
    max_tenant_actors: Annotated[
        int,
        Meta(
            description="Maximum actors of a tenant; beyond it, registration gets 403.",
            ge=1,
            le=100_000_000,
        ),
    ] = 1_000_000
    max_tenant_requests_per_second: Annotated[
        int,
        Meta(
            description="Maximum requests per second of a tenant to one process; others get 429.",
            ge=1,
            le=1_000_000,
        ),
    ] = 100_000
    append_timeout_seconds: Annotated[
        float, Meta(description="Seconds that a command may wait for the log.", gt=0, le=60)
    ] = 1.5
    query_timeout_seconds: Annotated[
        float, Meta(description="Seconds that a query may take in Postgres.", gt=0, le=60)
    ] = 0.8
    read_wait_seconds: Annotated[
        float,
        Meta(
            description="Seconds that a query waits until the read models include earlier writes.",
            ge=0,
            le=60,
        ),
    ] = 2.0
    max_lag_events: Annotated[
        int,
        Meta(
            description="Events that the read models may be behind while /readyz answers 200.", ge=0
        ),
    ] = 1000
    max_hops: Annotated[
        int,
        Meta(
            description="Maximum subscriptions in a chain of events; an event after more of them "
            "is not delivered.",
            ge=1,
            le=1000,
        ),
    ] = 8
    max_subscribers: Annotated[
        int, Meta(description="Maximum streams of events per process.", ge=1, le=100_000)
    ] = 1000
    ring_events: Annotated[
        int,
        Meta(
            description="Latest events that are kept in memory for streams.", ge=256, le=1_000_000
        ),
    ] = 10_000
    ring_bytes: Annotated[
        int,
        Meta(
            description="Maximum bytes of the events that are kept in memory for streams.",
            ge=1024 * 1024,
            le=4 * 1024 * 1024 * 1024,
        ),
    ] = 32 * 1024 * 1024
    stream_heartbeat_seconds: Annotated[
        float, Meta(description="Seconds between the heartbeats of an idle stream.", gt=0, le=60)
    ] = 5.0
    stream_write_seconds: Annotated[
        float,
        Meta(
            description="Seconds for which a client of a stream (events, output) may read nothing.",
            gt=0,
            le=300,
        ),
    ] = 10.0
    max_replay_seconds: Annotated[
        float, Meta(description="Seconds that an answer about the past may take.", gt=0, le=3600)
    ] = 30.0
    max_replays: Annotated[
        int,
        Meta(
            description="Maximum answers from history (as_of, why) per process at once; a request "
            "that waits for a third of ABACO_MAX_REPLAY_SECONDS gets 429 with Retry-After.",
            ge=1,
            le=1000,
        ),
    ] = 4
