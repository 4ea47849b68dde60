"""The events that a host appends about a worker and its runs, where no host takes part."""

from collections.abc import Mapping
from typing import Any

from abaco_proto import events as ev

IMAGE = "jstubbs/abaco_test"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def worker_ready(worker: Mapping[str, str], revision: int = 1) -> ev.WorkerReady:
    """A worker is ready; ``worker`` has the ids of its actor, itself and its host."""
    ids: dict[str, Any] = {**worker, "revision": revision}
    return ev.WorkerReady(**ids, image=IMAGE, image_digest=DIGEST, location="unix:///d.sock")


def run_started(
    run: Mapping[str, Any],
    *,
    started_at: str = "2026-01-02T03:04:06.000000Z",
    taken_at: str = "2026-01-02T03:04:05.900000Z",
) -> ev.ExecutionStarted:
    """A run has started; ``run`` has the ids of its worker and execution, and the attempt."""
    return ev.ExecutionStarted(
        **run,
        container_id="c0ffee" * 10,
        image_digest=DIGEST,
        start_kind=ev.StartKind.POOL,
        started_at=started_at,
        revision=1,
        taken_at=taken_at,
    )


def run_finished(run: Mapping[str, Any]) -> ev.ExecutionFinished:
    """A run has ended as most do."""
    return ev.ExecutionFinished(
        **run,
        exit_code=0,
        final_state=ev.FinalState(status="exited", exit_code=0),
        cpu_ns=9_000_000,
        io_bytes=736,
        runtime_ms=2004.5,
        log_bytes=33,
        log_sha256="ab" * 32,
    )
