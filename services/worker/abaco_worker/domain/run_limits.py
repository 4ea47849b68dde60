"""The limits of a run: the actor's own, or the host's."""

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_worker.worker_settings import WorkerSettings


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may use: bytes, CPUs, processes, seconds. 0 seconds or 0 disk bytes: no limit."""

    mem_limit: int
    max_cpus: float
    max_processes: int
    max_run_seconds: float
    max_log_bytes: int
    max_disk_bytes: int


def limits(definition: ev.Definition, config: WorkerSettings) -> Limits:
    """Return the actor's limits, with the host's where the actor sets none."""
    host = Limits(
        mem_limit=config.container_memory_bytes,
        max_cpus=config.container_cpus,
        max_processes=config.container_processes,
        max_run_seconds=config.max_run_seconds,
        max_log_bytes=config.max_log_bytes,
        max_disk_bytes=config.max_disk_bytes,
    )
    own = {name: getattr(definition, name) for name in Limits.__struct_fields__}
    return replace(host, **{name: value for name, value in own.items() if value is not None})
