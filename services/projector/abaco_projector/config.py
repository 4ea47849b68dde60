"""The projector's settings."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One value, read once; see ``docs/settings.md``."""

    nats_url: Annotated[str, Meta(min_length=1, description="The NATS server.")] = (
        "nats://127.0.0.1:4222"
    )
    postgres_dsn: Annotated[
        str, Meta(pattern="^postgres(ql)?://", description="The database of the read models.")
    ] = "postgresql://abaco@127.0.0.1:5432/abaco"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What is logged.")
    ] = "info"
    batch_events: Annotated[
        int, Meta(ge=1, description="At most this many events go into one transaction.")
    ] = 500
