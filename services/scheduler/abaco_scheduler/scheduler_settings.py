"""The settings of the scheduler, as one frozen struct."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from abaco_proto.ids import TENANT_PATTERN
from abaco_proto.settings import NATS_URL_PATTERN
from abaco_scheduler.domain.policy import Policy

_DEFAULT = Policy()


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
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
        float, Meta(ge=2, description="A host is lost when it has sent no heartbeat for this long.")
    ] = _DEFAULT.host_timeout_seconds
    max_attempts: Annotated[
        int, Meta(ge=1, description="The number of attempts before an execution is abandoned.")
    ] = _DEFAULT.max_attempts
    retry_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="The pause after an execution's first failed attempt; it then doubles.",
        ),
    ] = _DEFAULT.retry_seconds
    retry_max_seconds: Annotated[
        float, Meta(gt=0, description="The longest pause between attempts of an execution.")
    ] = _DEFAULT.retry_max_seconds
    turn_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="The time slice of an actor. If fewer slots than actors have messages, an"
            " actor's worker is preempted for the next actor after this long.",
        ),
    ] = _DEFAULT.time_slice_seconds
    worker_retry_seconds: Annotated[
        float,
        Meta(gt=0, description="The pause after a worker's first failure; it doubles with each."),
    ] = _DEFAULT.worker_retry_seconds
    worker_retry_max_seconds: Annotated[
        float, Meta(gt=0, description="The longest pause between attempts to start a worker.")
    ] = _DEFAULT.worker_retry_max_seconds
    worker_ttl_seconds: Annotated[
        float, Meta(ge=0, description="An idle worker above min_workers stops after this.")
    ] = _DEFAULT.worker_ttl_seconds
