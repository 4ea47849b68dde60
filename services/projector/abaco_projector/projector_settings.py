"""The settings of the projector, as one frozen struct."""

from typing import Annotated

from msgspec import Meta

from abaco_proto.settings import MetricsServiceSettings, PostgresDsn


class ProjectorSettings(MetricsServiceSettings, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation."""

    postgres_dsn: PostgresDsn = "postgresql://abaco@127.0.0.1:5432/abaco"
    batch_events: Annotated[
        int, Meta(ge=1, description="At most this many events go into one transaction.")
    ] = 2000
