"""The worker's metrics of runs, deliveries, sandboxes and its engine."""

from pathlib import Path

import pytest

import builders as b
import readings
from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH
from abaco_worker.app.worker_loop import WorkerLoop
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.domain.engine_errors import ImageMissing
from abaco_worker.engine.instrumented_engine import InstrumentedEngine
from fake_engine import IMAGE, FakeEngine, Program
from worker_stage import Stage


async def run_one(stage: Stage, service: WorkerLoop) -> None:
    await stage.register()
    await stage.request()
    await stage.until_seen(ev.WorkerReady)
    await stage.send(0, Program(prints="x"))
    await stage.assign(0)
    await stage.until_seen(ev.ExecutionFinished)
    await service.update_metrics()


@pytest.mark.parametrize("launcher", [False, True])
async def test_a_run_is_counted_step_by_step(tmp_path: Path, *, launcher: bool) -> None:
    stage = Stage(folder=tmp_path if launcher else None)
    registry = stage.metrics.registry
    kind = "sandbox" if launcher else "cold"
    async with stage.service() as service:
        await run_one(stage, service)
        found = readings.of(registry)
        stage.queue.redeliver(stage.queue.handed_out[-1].recorded)
        await stage.until(
            lambda: readings.value(readings.of(registry), "abaco_redeliveries_total") == 1
        )
    stage.kill()
    for name in ("abaco_accepted_to_taken", "abaco_run", "abaco_started_to_recorded"):
        assert readings.value(found, f"{name}_seconds_count") == 1, name
    waited = readings.value(found, "abaco_taken_to_started_seconds_count", start_kind=kind)
    assert waited == (1 if launcher else 0)  # a cold start without a launcher is not timed
    assert readings.value(found, "abaco_executions_started_total", start_kind=kind) == 1
    assert readings.value(found, "abaco_executions_finished_total", ended_by="itself") == 1
    assert readings.value(found, "abaco_deliveries_total") == 2
    assert readings.value(found, "abaco_host_seats") == 1
    assert readings.value(found, "abaco_host_capacity") == 4


def test_clocks_of_two_machines_give_no_time_below_none() -> None:
    metrics = WorkerMetrics()
    metrics.taken(b.T0, EPOCH)
    metrics.taken(EPOCH, b.T0)  # the time of acceptance is unknown
    found = readings.of(metrics.registry)
    assert readings.value(found, "abaco_accepted_to_taken_seconds_count") == 1
    assert readings.value(found, "abaco_accepted_to_taken_seconds_sum") == 0


async def test_calls_of_the_engine_are_counted_by_kind_and_failure() -> None:
    metrics = WorkerMetrics()
    engine = InstrumentedEngine(FakeEngine(), metrics.measure_call)
    await engine.find_image(IMAGE)
    with pytest.raises(ImageMissing):
        await engine.find_image("no/such")
    found = readings.of(metrics.registry)
    assert readings.value(found, "abaco_engine_call_seconds_count", call="find_image") == 2
    failures = {"call": "find_image", "error": "ImageMissing"}
    assert readings.value(found, "abaco_engine_call_failures_total", **failures) == 1
