"""The worker loop with fakes: the events that it appends for its work items."""

import hashlib

import pytest

import builders as b
from abaco_jetstream.retry import append_until_stored, every
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_proto.events import type_of
from abaco_worker.domain.container_labels import assignment_labels
from abaco_worker.domain.disposition import MAX_FAULT_ATTEMPTS
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import Image
from abaco_worker.runs import cold_run as run_module
from contract.engine_suite import spec_of
from contract.test_engine import FakeYard
from fake_engine import IMAGE, UNSTARTABLE, Program
from worker_stage import Stage


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_worker.app.worker_unit.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.app.waiting.LOG_BACKOFF", every(0.001))
    monkeypatch.setattr("abaco_worker.app.adoption.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.PAUSE_SECONDS", 0.001)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def with_worker(stage: Stage, **definition: object) -> None:
    """The worker foo_0_wkr_0 is ready."""
    if isinstance(image := definition.get("image"), str):
        stage.engine.images.setdefault(image, stage.engine.images[IMAGE])
    await stage.register(**definition)
    await stage.request()
    await stage.until_seen(ev.WorkerReady)


# -- workers


async def test_a_worker_gets_ready(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.until_idle()
    assert stage.seen(ev.WorkerReady) == [
        b.ready(
            image=IMAGE,
            image_digest="sha256:d1",
            location="fake://engine",
            isolation=ev.Isolation.CONTAINER,
            isolation_reason="this host has no launcher",
        )
    ]
    [recorded] = [r for r in stage.log.events if isinstance(r.event, ev.WorkerReady)]
    assert recorded.causation_id == "foo_0_wkr_0.requested"
    assert recorded.correlation_id == "foo_0_wkr_0.requested"


async def test_a_worker_whose_image_cannot_be_had_fails_and_says_why(stage: Stage) -> None:
    async with stage.service():
        await stage.register(image="nope/nope")
        await stage.request()
        [failed] = await stage.until_seen(ev.WorkerFailed)
        await stage.until_idle()
    assert failed == b.failed(reason="image nope/nope: pull failed: no such host")


async def test_a_worker_without_a_definition_fails(stage: Stage) -> None:
    async with stage.service():
        await stage.send()
        await stage.request()
        [failed] = await stage.until_seen(ev.WorkerFailed)
    assert failed.reason == "no definition of an actor at 1 in the log"


async def test_an_image_is_pulled_for_many_workers_at_once(stage: Stage) -> None:
    stage.engine.registry["far/away"] = Image(image_id="sha256:9", digest="sha256:d9")
    async with stage.service():
        await stage.register(image="far/away")
        for n in range(5):
            await stage.request(n)
        await stage.until_seen(ev.WorkerReady, 5)
    assert stage.engine.pulls == ["far/away"]


async def test_while_the_engine_is_away_a_worker_waits_for_it(stage: Stage) -> None:
    stage.engine.available = False
    async with stage.service():
        await stage.register()
        await stage.request()
        await stage.until(lambda: len(stage.heartbeats.sent) > 3)
        assert not stage.seen(ev.WorkerFailed)
        stage.engine.available = True
        await stage.until_seen(ev.WorkerReady)


async def test_a_request_that_was_answered_before_is_not_answered_again(stage: Stage) -> None:
    await stage.register()
    await stage.request()
    await stage.append(b.failed(reason="before"))
    async with stage.service():
        await stage.until(lambda: 2 in stage.queue.settled)
    assert not stage.seen(ev.WorkerReady)


async def test_an_idle_worker_is_given_up(stage: Stage) -> None:
    async with stage.service() as service:
        await with_worker(stage)
        await stage.append(b.stop_requested())
        assert await stage.until_seen(ev.WorkerStopped) == [b.stopped()]
        await stage.until(lambda: not service._workers)
        await stage.until_idle()


async def test_a_worker_from_before_a_restart_is_given_up(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
    async with stage.service():
        await stage.append(b.stop_requested())
        await stage.until_seen(ev.WorkerStopped)


async def test_a_worker_asked_to_stop_before_it_was_ready_only_stops(stage: Stage) -> None:
    stage.engine.available = False
    async with stage.service():
        await stage.register()
        await stage.request()
        await stage.append(b.stop_requested())
        await stage.until(lambda: len(stage.queue.handed_out) == 2)
        await stage.until_seen(ev.WorkerStopped)
    assert not stage.seen(ev.WorkerReady)


async def test_heartbeats_tell_host_and_capacity(stage: Stage) -> None:
    async with stage.service():
        await stage.until(lambda: len(stage.heartbeats.sent) > 1)
    assert (stage.heartbeats.sent[0].host_id, stage.heartbeats.sent[0].capacity) == ("h1", 4)


# -- runs


async def test_a_run_from_assignment_to_report(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(prints="hello\n", exit_code=3))
        recorded = await stage.assign()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    [started] = stage.seen(ev.ExecutionStarted)
    assert (started.container_id, started.image_digest) == ("c0", "sha256:d1")
    assert started.start_kind is ev.StartKind.COLD
    assert started.started_at == "2026-01-02T03:04:06.000000001Z"
    assert finished.exit_code == 3
    assert finished.runtime_ms == 2000.0
    assert stage.output("foo_0_exc_0") == b"hello\n"
    assert (finished.log_bytes, finished.log_sha256) == (6, hashlib.sha256(b"hello\n").hexdigest())
    reports = [r for r in stage.log.events if r.causation_id == recorded.id]
    assert [type_of(r.event) for r in reports] == ["execution.started", "execution.finished"]


async def test_what_a_follower_missed_is_read_at_the_end(stage: Stage) -> None:
    stage.engine.swallows = 7
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(lines=3000))
        await stage.assign()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    expected = "".join(f"{n}\n" for n in range(1, 3001)).encode()
    assert stage.output("foo_0_exc_0") == expected
    assert finished.log_bytes == len(expected)


async def test_output_is_there_before_the_run_ends(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(prints="working\n", forever=True))
        await stage.assign()
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"working\n")
        await stage.until_seen(ev.ExecutionStarted)
        assert not stage.seen(ev.ExecutionFinished)
        stage.engine.containers["c0"].end(0)
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert (finished.cpu_ns, finished.io_bytes) == (1_000_000, 10 + len(b"working\n"))


async def test_a_run_writes_too_much_to_disk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_worker.runs.disk_limit.MEASURE_SECONDS", 0.01)
    async with stage.service():
        await with_worker(stage, max_disk_bytes=1000)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        stage.engine.containers["c0"].written = 1001
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.MAX_DISK_BYTES


async def test_too_much_output_is_cut_off_with_a_mark() -> None:
    stage = Stage(max_log_bytes=5)
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(prints="0123456789"))
        await stage.assign()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert stage.output("foo_0_exc_0") == b"01234\n[abaco: output truncated at 5 bytes]\n"
    assert finished.log_truncated
    assert finished.log_bytes == len(stage.output("foo_0_exc_0"))


async def test_the_environment_holds_defaults_message_and_state(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, default_environment={"A": "1", "B": "1"})
        await stage.append(ev.ActorStateSet(actor_id="foo_0", state={"n": 1}, version=1))
        await stage.append(ev.ActorStateSet(actor_id="bar_0", state="other", version=1))
        await stage.send(0, Program(forever=True), environment={"B": "2"})
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        [container] = stage.engine.containers.values()
    assert container.spec.environment["A"] == "1"
    assert container.spec.environment["B"] == "2"
    assert container.spec.environment["_abaco_actor_state"] == '{"n":1}'


async def test_an_older_assignment_leaves_the_state_to_be_looked_up(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.append(ev.ActorStateSet(actor_id="foo_0", state="known", version=1))
        await stage.send(0, Program(forever=True))
        await stage.assign(state_sequence=None)
        await stage.until_seen(ev.ExecutionStarted)
        [container] = stage.engine.containers.values()
    assert container.spec.environment["_abaco_actor_state"] == "known"


async def test_a_worker_runs_one_after_another_in_order(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        for n in range(3):
            await stage.send(n, Program(forever=True))
        for n in range(3):
            await stage.assign(n)
        for n in range(3):
            await stage.until_seen(ev.ExecutionStarted, n + 1)
            running = [c for c in stage.engine.containers.values() if not c.ended.is_set()]
            assert len(running) == 1
            running[0].end(n)
        await stage.until_seen(ev.ExecutionFinished, 3)
        await stage.until_idle()
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == [0, 1, 2]


async def test_two_workers_run_at_the_same_time(stage: Stage) -> None:
    async with stage.service():
        await stage.register()
        for n in range(2):
            await stage.request(n)
            await stage.send(n, Program(forever=True))
        await stage.until_seen(ev.WorkerReady, 2)
        for n in range(2):
            await stage.assign(n, worker_id=f"foo_0_wkr_{n}")
        await stage.until_seen(ev.ExecutionStarted, 2)


async def test_a_worker_is_given_up_only_after_its_run(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.append(b.stop_requested())
        await stage.until_seen(ev.ExecutionStarted)
        assert not stage.seen(ev.WorkerStopped)
        stage.engine.containers["c0"].end(0)
        await stage.until_seen(ev.WorkerStopped)
    kinds = [type_of(event) for event in stage.log.bodies()]
    assert kinds[-2:] == ["execution.finished", "worker.stopped"]


async def test_a_command_that_cannot_be_run_is_a_result(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, image=UNSTARTABLE)
        await stage.send()
        await stage.assign()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    assert finished.exit_code == 127
    assert "/nope" in finished.final_state.error
    assert not stage.seen(ev.ExecutionStarted)


async def test_an_image_that_went_away_is_pulled_again(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        stage.engine.registry[IMAGE] = stage.engine.images.pop(IMAGE)
        await stage.send()
        await stage.assign()
        await stage.until_seen(ev.ExecutionFinished)
    assert stage.engine.pulls == [IMAGE]


async def test_an_image_that_went_away_for_good_fails_the_attempt_and_not_the_worker(
    stage: Stage,
) -> None:
    async with stage.service() as service:
        await with_worker(stage)
        image = stage.engine.images.pop(IMAGE)
        await stage.send()
        await stage.assign()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        await stage.until_idle()
        assert failed == b.execution_failed(reason=f"image {IMAGE}: pull failed: no such host")
        assert service._workers
        stage.engine.images[IMAGE] = image
        await stage.assign(attempt=2)
        await stage.until_seen(ev.ExecutionFinished)
    assert not stage.seen(ev.WorkerFailed)


async def test_a_rerun_whose_image_is_gone_fails_and_the_next_message_runs(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, image=f"{IMAGE}:1")
        gone = ev.Rerun(
            execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=0, image="sha256:gone"
        )
        await stage.send(0, rerun=gone)
        await stage.send(1)
        await stage.assign(0)
        await stage.assign(1)
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        await stage.until_seen(ev.ExecutionFinished)
    assert failed.reason == f"image {IMAGE}@sha256:gone: pull failed: no such host"
    assert not stage.seen(ev.WorkerFailed)


async def test_a_fault_that_passes_is_tried_again(stage: Stage) -> None:
    stage.engine.faults = [EngineFault("no space left")]
    async with stage.service():
        await with_worker(stage)
        await stage.send()
        await stage.assign()
        await stage.until_seen(ev.ExecutionFinished)
    assert not stage.seen(ev.WorkerFailed)


async def test_a_fault_that_stays_fails_the_attempt_and_not_the_worker(stage: Stage) -> None:
    stage.engine.faults = [EngineFault("no space left")] * MAX_FAULT_ATTEMPTS
    async with stage.service():
        await with_worker(stage)
        await stage.send()
        await stage.assign()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        assert failed == b.execution_failed(reason="no space left")
        await stage.assign(attempt=2)
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    assert finished.attempt == 2
    assert not stage.seen(ev.WorkerFailed)


async def test_a_container_removed_under_our_hands_fails_the_attempt(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        await stage.engine.remove("c0")
        await stage.until_seen(ev.ExecutionFailed)
    assert not stage.seen(ev.ExecutionFinished)


async def test_an_engine_away_in_the_middle_is_waited_for(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(prints="hello\n", forever=True))
        await stage.assign()
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"hello\n")
        stage.engine.available = False
        stage.engine.containers["c0"].end(0)
        beats = len(stage.heartbeats.sent)
        await stage.until(lambda: len(stage.heartbeats.sent) > beats + 3)
        stage.engine.available = True
        await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    assert len(stage.engine.starts) == 1
    assert len(stage.seen(ev.ExecutionStarted)) == 1


async def test_a_log_away_in_the_middle_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def quickly(log: object, draft: object, *, after: int) -> int:
        return await append_until_stored(log, draft, after=after, backoff=every(0.001))  # type: ignore[arg-type]

    monkeypatch.setattr("abaco_worker.app.host_context.append_until_stored", quickly)
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        stage.log.available = stage.outputs.available = False
        stage.engine.containers["c0"].end(5)
        beats = len(stage.heartbeats.sent)
        await stage.until(lambda: len(stage.heartbeats.sent) > beats + 3)
        assert not stage.seen(ev.ExecutionFinished)
        stage.log.available = stage.outputs.available = True
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    assert finished.exit_code == 5


async def test_what_is_halted_before_its_start_is_not_started_without_a_launcher_either(
    stage: Stage,
) -> None:
    async with stage.service() as service:
        await with_worker(stage)
        await stage.send()
        await stage.append(b.halt_requested())
        halt = service._host.cancellations.event_of("default", "foo_0_exc_0")
        await stage.until(halt.is_set)
        await stage.assign()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        await stage.until_idle()
    assert failed.reason == "halted before it started"
    assert not stage.engine.starts


async def test_a_run_without_a_launcher_is_halted_by_the_engine(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        await stage.append(b.halt_requested())
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.HALT
    assert finished.exit_code == 143


# -- redelivered and outdated work items


async def test_what_is_in_hand_is_not_begun_again(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        recorded = await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        stage.queue.redeliver(recorded)
        await stage.until(lambda: stage.queue.handed_out[-1].reports == 1)
        stage.engine.containers["c0"].end(0)
        await stage.until_seen(ev.ExecutionFinished)
    assert len(stage.engine.starts) == 1


async def test_what_was_settled_is_not_done_again(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send()
        recorded = await stage.assign()
        await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
        stage.queue.settled.clear()
        stage.queue.redeliver(recorded)
        await stage.until(lambda: recorded.sequence in stage.queue.settled)
    assert len(stage.engine.starts) == 1
    assert len(stage.seen(ev.ExecutionFinished)) == 1


@pytest.mark.parametrize(
    "later",
    [
        b.assigned(attempt=2, worker_id="foo_0_wkr_1", host_id="h2"),
        b.lost(),
        b.abandoned(),
    ],
)
async def test_what_was_taken_away_meanwhile_is_not_run(stage: Stage, later: ev.Event) -> None:
    await stage.register()
    await stage.request()
    await stage.append(b.ready())
    await stage.send()
    recorded = await stage.assign()
    await stage.append(later)
    async with stage.service():
        await stage.until(lambda: recorded.sequence in stage.queue.settled)
    assert stage.engine.starts == []
    assert not stage.seen(ev.ExecutionFinished)


async def test_what_was_taken_away_during_a_long_run_is_not_reported(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RECHECK_SECONDS", 0.0)
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
        await stage.append(b.lost())
        stage.engine.containers["c0"].end(0)
        await stage.until_idle()
    assert not stage.seen(ev.ExecutionFinished)


async def test_an_event_that_is_no_work_is_settled(stage: Stage) -> None:
    subject = "abaco.event.default.foo_0.moon.landed.h1"
    sequence = stage.log.put_raw(subject, {}, b'{"type":"moon.landed"}')
    async with stage.service():
        await stage.until(lambda: sequence in stage.queue.settled)


# -- adoption


async def test_what_runs_at_the_end_is_left_running_and_found_again(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.send(0, Program(prints="once\n", forever=True))
        await stage.assign()
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"once\n")
    assert not stage.engine.containers["c0"].ended.is_set()
    async with stage.service():
        stage.queue.redeliver_unsettled()
        beats = len(stage.heartbeats.sent)
        await stage.until(lambda: len(stage.heartbeats.sent) > beats + 3)
        stage.engine.containers["c0"].end(0)
        await stage.until_seen(ev.ExecutionFinished)
        await stage.until_idle()
    assert len(stage.engine.starts) == 1
    assert stage.output("foo_0_exc_0") == b"once\n"


async def test_what_is_over_is_removed_at_the_start(stage: Stage) -> None:
    await stage.register()
    await stage.send()
    recorded = await stage.assign()
    await stage.append(b.finished())
    await put_container(stage, assignment_labels(recorded))
    stage.queue.settled.add(recorded.sequence)
    async with stage.service():
        await stage.until(lambda: not stage.engine.containers)


async def test_what_our_log_does_not_explain_is_left(stage: Stage) -> None:
    foreign = assignment_labels(b.record(b.assigned(), 99))
    other_time = assignment_labels(b.record(b.assigned(), 1))
    await put_container(stage, foreign)
    await put_container(stage, {"abaco.host_id": "h1"})
    await put_container(stage, {**foreign, "abaco.host_id": "h2"})
    await put_container(stage, other_time)
    await stage.append(b.finished())
    async with stage.service():
        beats = len(stage.heartbeats.sent)
        await stage.until(lambda: len(stage.heartbeats.sent) > beats + 3)
    assert len(stage.engine.containers) == 4


async def put_container(stage: Stage, container_labels: dict[str, str]) -> None:
    await stage.engine.create(spec_of(FakeYard(), labels=container_labels))


async def test_adoption_waits_for_the_engine(stage: Stage) -> None:
    await stage.register()
    await stage.send()
    recorded = await stage.assign()
    await stage.append(b.finished())
    await put_container(stage, assignment_labels(recorded))
    stage.queue.settled.add(recorded.sequence)
    stage.engine.available = False
    async with stage.service():
        with pytest.raises(Unavailable):
            await stage.engine.labelled("a", "b")
        stage.engine.available = True
        await stage.until(lambda: not stage.engine.containers)
