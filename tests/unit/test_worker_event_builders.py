from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from abaco_proto.envelope import encode
from abaco_worker.domain import event_builders
from abaco_worker.domain.engine_errors import CannotStart
from abaco_worker.domain.engine_values import Container, ResourceUsage
from abaco_worker.domain.output_counter import OutputCounter
from abaco_worker.domain.run_report import parse_report
from unit.test_worker_run_spec import order


def ended(started_at: str, finished_at: str) -> Container:
    return Container(
        container_id="c",
        image_id="i",
        status="exited",
        exit_code=3,
        oom_killed=True,
        started_at=started_at,
        finished_at=finished_at,
    )


@pytest.mark.parametrize(
    ("started_at", "finished_at", "expected"),
    [
        ("2026-01-02T03:04:06.123456789Z", "2026-01-02T03:04:08.623456789Z", 2500.0),
        ("2026-01-02T03:04:06Z", "2026-01-02T03:04:06Z", 1.0),
        ("2026-11-23T22:01:13.463446965Z", "2026-11-23T22:01:13.462275535Z", 1.0),
        ("", "", 1.0),
    ],
)
def test_a_run_that_happened_took_time(started_at: str, finished_at: str, expected: float) -> None:
    assert event_builders.runtime_ms(ended(started_at, finished_at)) == expected


def test_a_worker_that_is_ready_reports_its_isolation_and_why_it_is_not_the_one_asked_for() -> None:
    ready = partial(
        event_builders.worker_ready,
        b.requested(),
        image="jstubbs/abaco_test",
        digest="sha256:0123",
        location="here",
        container_id=None,
    )
    able = ready(isolation=ev.Isolation.SANDBOX, isolation_reason="")
    assert able == b.ready(location="here", isolation=ev.Isolation.SANDBOX)
    assert b"isolation_reason" not in encode(able)
    limited = ready(isolation=ev.Isolation.CONTAINER, isolation_reason="no launcher")
    assert limited == b.ready(
        location="here", isolation=ev.Isolation.CONTAINER, isolation_reason="no launcher"
    )


def test_the_report_of_a_run() -> None:
    tally = OutputCounter(2)
    list(tally.add(b"abc"))
    container = ended("2026-01-02T03:04:06Z", "2026-01-02T03:04:08Z")
    event = event_builders.container_run_finished(
        order(), container, ResourceUsage(cpu_ns=5, io_bytes=7), tally
    )
    assert (event.execution_id, event.attempt, event.worker_id) == ("foo_0_exc_7", 1, "foo_0_wkr_0")
    assert event.exit_code == event.final_state.exit_code == 3
    assert event.final_state.oom_killed
    assert event.final_state.started_at == "2026-01-02T03:04:06Z"
    assert (event.cpu_ns, event.io_bytes, event.runtime_ms) == (5, 7 + 3, 2000.0)
    assert (event.log_bytes, event.log_sha256) == (tally.recorded_bytes, tally.sha256)
    assert event.log_truncated


def test_a_run_that_was_killed_for_its_memory_says_so() -> None:
    killed = replace(ended("2026-01-02T03:04:06Z", "2026-01-02T03:04:08Z"), exit_code=137)
    state = event_builders.container_run_finished(
        order(), killed, ResourceUsage(), OutputCounter(0)
    ).final_state
    assert (state.ended_by, state.oom_killed) == (ev.EndedBy.MEM_LIMIT, True)
    assert state.error == "out of memory: used more than mem_limit"


@pytest.mark.parametrize("by", [ev.EndedBy.HALT, ev.EndedBy.MAX_RUN_SECONDS])
def test_what_the_worker_ended_was_ended_by_the_worker(by: ev.EndedBy) -> None:
    killed = replace(ended("2026-01-02T03:04:06Z", "2026-01-02T03:04:08Z"), exit_code=137)
    assert (
        event_builders.container_run_finished(
            order(), killed, ResourceUsage(), OutputCounter(0), by
        ).final_state.ended_by
        is by
    )


@pytest.mark.parametrize("changes", [{"exit_code": 3}, {"exit_code": 137, "oom_killed": False}])
def test_a_run_that_went_on_or_was_killed_by_others_was_not(changes: dict[str, Any]) -> None:
    container = replace(ended("2026-01-02T03:04:06Z", "2026-01-02T03:04:08Z"), **changes)
    state = event_builders.container_run_finished(
        order(), container, ResourceUsage(), OutputCounter(0)
    ).final_state
    assert state.ended_by is ev.EndedBy.ITSELF


def test_an_end_before_the_beginning_is_set_right() -> None:
    container = ended("2026-11-23T22:01:13.463446965Z", "2026-11-23T22:01:13.462275535Z")
    state = event_builders.container_run_finished(
        order(), container, ResourceUsage(), OutputCounter(0)
    ).final_state
    assert state.finished_at == state.started_at


def test_the_report_of_a_command_that_cannot_be_run() -> None:
    refusal = CannotStart("exec: /nope: no such file", exit_code=127)
    event = event_builders.container_run_not_started(order(), refusal)
    assert event.exit_code == 127
    assert event.final_state.error == "exec: /nope: no such file"
    assert (event.log_bytes, event.runtime_ms) == (0, 0.0)


def test_a_stop_repeats_the_reason() -> None:
    assert event_builders.worker_stopped(b.stop_requested()).reason == "idle"


def test_output_is_part_of_what_a_run_wrote_once_and_beyond_its_limit() -> None:
    report = parse_report(
        "report exit=0 signal=0 started=1 ended=2 first_output=1 cpu=1 memory=1 cgroup_memory=0"
        " io=1000 network=100 kept=10 dropped=7 oom=0 halted=0 timed_out=0 stopped=0 words=\n"
    )
    event = event_builders.sandbox_run_finished(
        order(), report, ev.EndedBy.ITSELF, OutputCounter(10)
    )
    assert event.io_bytes == 1117
    assert event.network_bytes == 100
