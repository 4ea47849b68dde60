"""The settings of the projector, as one frozen struct."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from abaco_proto.settings import NATS_URL_PATTERN


class ProjectorSettings(msgspec.Struct, frozen=True, kw_only=True):
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
    postgres_dsn: Annotated[
        str, Meta(description="Where the read models are.", pattern=r"^postgres(ql)?://")
    ] = "postgresql://abaco@127.0.0.1:5432/abaco"
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
    batch_events: Annotated[
        int, Meta(ge=1, description="At most this many events go into one transaction.")
    ] = 2000
