"""The settings of the scheduler, as one frozen value."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from abaco_proto.ids import TENANT_PATTERN
from abaco_proto.settings import NATS_URL_PATTERN


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation."""

    nats_url: Annotated[
        str,
        Meta(
            description="Where the log is; of a cluster, all servers with commas between them.",
            pattern=NATS_URL_PATTERN,
        ),
    ] = "nats://127.0.0.1:4222"
    nats_replicas: Annotated[
        Literal[1, 3, 5],
        Meta(description="On how many servers of a NATS cluster the log is kept: 1, 3 or 5."),
    ] = 1
    tenant: Annotated[str, Meta(description="Whose actors these are.", pattern=TENANT_PATTERN)] = (
        "default"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least serious message that is logged."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="How lines are logged: text for people, json for programs."),
    ] = "text"
    metrics_host: Annotated[
        str, Meta(description="The address the metrics are read at.", min_length=1)
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int,
        Meta(
            description="The port they are read at; 0 is none. The api's are at its own, as"
            " /metrics.",
            ge=0,
            le=65535,
        ),
    ] = 0
    host_timeout_seconds: Annotated[
        float, Meta(ge=2, description="A host that sent no heartbeat for this long is lost.")
    ] = 15.0
    max_attempts: Annotated[
        int, Meta(ge=1, description="How often an execution is tried before it is abandoned.")
    ] = 5
    retry_seconds: Annotated[
        float,
        Meta(gt=0, description="The pause after an execution's first failed try; it doubles."),
    ] = 1.0
    retry_max_seconds: Annotated[
        float, Meta(gt=0, description="The longest pause between tries of an execution.")
    ] = 60.0
    turn_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Where seats are fewer than actors with work, a worker goes to the next "
            "actor after this long.",
        ),
    ] = 2.0
    worker_retry_seconds: Annotated[
        float,
        Meta(gt=0, description="The pause after a worker's first failure; it doubles with each."),
    ] = 10.0
    worker_retry_max_seconds: Annotated[
        float, Meta(gt=0, description="The longest pause between tries to get a worker going.")
    ] = 600.0
    worker_ttl_seconds: Annotated[
        float, Meta(ge=0, description="Idle workers above min_workers are given up after this.")
    ] = 300.0
