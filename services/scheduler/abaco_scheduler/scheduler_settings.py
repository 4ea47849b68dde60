"""The settings of the scheduler, as one frozen struct."""

from typing import Annotated

from msgspec import Meta

from abaco_proto.settings import MetricsServiceSettings, Tenant
from abaco_scheduler.domain.policy import Policy

_DEFAULT = Policy()


class SchedulerSettings(MetricsServiceSettings, frozen=True, kw_only=True):
    """Each field is the variable ``ABACO_<FIELD>``; its description is its documentation."""

    tenant: Tenant = "default"
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
    max_tenant_workers: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="The most workers, and so slots, that one tenant has at once.",
        ),
    ] = _DEFAULT.max_tenant_workers
