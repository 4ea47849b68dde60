"""What a person can do about executions, on the whole system."""

import statistics
import threading
import time
from typing import Any

from abaco_proto import events as ev
from containers import left_of
from stack import Stack, eventually

NUMBERS = "abaco-test/numbers"
STAMPS = "abaco-test/stamps"
PAUSE_SECONDS = 0.7
"""Between two lines of STAMPS."""


def shown(stack: Stack, execution_id: str) -> dict[str, Any]:
    actor_id = execution_id.rpartition("_exc_")[0]
    return stack.call("GET", f"/actors/{actor_id}/executions/{execution_id}")


def wait_status(stack: Stack, execution_id: str, status: str) -> None:
    eventually(lambda: stack.status_of(execution_id) == status, what=f"{execution_id} is {status}")


def test_halts_and_purges_end_as_what_they_are(stack: Stack) -> None:
    actor_id = stack.register("ended", NUMBERS, min_workers=1, max_workers=1)
    stack.wait_ready(actor_id)
    running, waiting, *rest = [stack.send(actor_id, "600") for _ in range(5)]
    wait_status(stack, running, "RUNNING")
    stack.call("DELETE", f"/actors/{actor_id}/executions/{waiting}")
    stack.call("DELETE", f"/actors/{actor_id}/messages")
    stack.call("DELETE", f"/actors/{actor_id}/executions/{running}")
    wait_status(stack, running, "HALTED")
    assert shown(stack, running)["final_state"]["ended_by"] == "halt"
    assert shown(stack, running)["exit_code"] == 143
    assert stack.status_of(waiting) == "HALTED"
    assert shown(stack, waiting)["exit_code"] is None
    assert [stack.status_of(each) for each in rest] == ["PURGED"] * 3
    last = stack.send(actor_id, "1")
    stack.wait_complete([last])
    totals = stack.call("GET", f"/actors/{actor_id}/executions")
    ends = [totals[f"total_{end}"] for end in ("halted", "purged", "complete", "error")]
    assert (totals["total_executions"], ends) == (6, [2, 3, 1, 0])
    again = stack.http.delete(f"/actors/{actor_id}/executions/{last}")
    assert again.status_code == 409


def test_a_deleted_actor_stops_and_what_it_did_stays_readable(stack: Stack) -> None:
    actor_id = stack.register("mortal", NUMBERS, min_workers=1, max_workers=1)
    stack.wait_ready(actor_id)
    running, waiting = (stack.send(actor_id, "600") for _ in range(2))
    wait_status(stack, running, "RUNNING")
    eventually(lambda: "2\n" in stack.logs(running), what="it has written")
    stack.call("DELETE", f"/actors/{actor_id}")
    wait_status(stack, running, "HALTED")
    assert shown(stack, running)["final_state"]["ended_by"] == "halt"
    assert stack.status_of(waiting) == "PURGED"
    assert stack.logs(running).startswith("1\n2\n")
    eventually(lambda: not workers_of(stack, actor_id), what="its workers are gone")
    eventually(lambda: not left_of(actor_id, stack.host_id()), what="its containers are gone")
    assert stack.http.get(f"/actors/{actor_id}").status_code == 404
    purged = stack.http.delete(f"/actors/{actor_id}/executions/{waiting}")
    assert purged.status_code == 409


def workers_of(stack: Stack, actor_id: str) -> set[str]:
    """The workers of an actor that take a slot, by the log."""
    workers: set[str] = set()
    for event in (recorded.event for recorded in stack.events()):
        if getattr(event, "actor_id", "") == actor_id:
            if isinstance(event, ev.WorkerRequested):
                workers.add(event.worker_id)
            elif isinstance(event, ev.WorkerStopped | ev.WorkerFailed | ev.WorkerLost):
                workers.discard(event.worker_id)
    return workers


def test_an_actors_own_limits_hold(stack: Stack) -> None:
    limits = {"max_run_seconds": 0.5, "max_log_bytes": 20, "max_cpus": 0.5, "mem_limit": "32m"}
    actor_id = stack.register("limited", NUMBERS, **limits)
    stack.wait_ready(actor_id)
    long = stack.send(actor_id, "600")
    stack.wait_complete([long])
    found = shown(stack, long)
    assert found["final_state"]["ended_by"] == "max_run_seconds"
    assert "max_run_seconds" in found["status_message"]
    timeline = found["timeline"]
    names = ["accepted", "taken", "started", "first_output", "ended", "recorded"]
    assert [timeline[name] for name in names] == sorted(timeline[name] for name in names)


def test_an_actor_scaled_to_zero_starts_cold_and_comes_back(stack: Stack) -> None:
    actor_id = stack.register("rare", "abaco-test/quick", min_workers=0)
    assert stack.try_list(f"/actors/{actor_id}/workers") == []
    execution_id = stack.send(actor_id, "wake up")
    stack.wait_complete([execution_id])
    assert shown(stack, execution_id)["start_kind"] == "cold"
    assert stack.logs(execution_id) == "got wake up\n"


def test_output_is_followed_while_it_appears(stack: Stack) -> None:
    """Each line says when it was written, to 10 ms; the reader says when it came."""
    actor_id = stack.register("followed", STAMPS)
    stack.wait_ready(actor_id)
    execution_id = stack.send(actor_id, "12")
    path = f"/actors/{actor_id}/executions/{execution_id}/logs?follow=true"
    with stack.http.stream("GET", path) as answer:
        assert answer.status_code == 200
        lags = [
            time.clock_gettime(time.CLOCK_BOOTTIME) - float(line) for line in answer.iter_lines()
        ]
    assert len(lags) == 12
    print("ms from written to read:", [round(lag * 1000) for lag in lags])  # noqa: T201
    assert statistics.median(lags) < PAUSE_SECONDS, "a line comes before the next one is written"
    stack.wait_complete([execution_id])


def test_a_message_does_not_wait_for_five_hundred_of_another_actor(stack: Stack) -> None:
    many = stack.register("many", "abaco-test/slow", min_workers=2, max_workers=2)
    one = stack.register("one", "abaco-test/quick", min_workers=1)
    stack.wait_ready(many)
    stack.wait_ready(one)

    def flood() -> None:
        for n in range(500):
            stack.send(many, f"{n}")

    flooding = threading.Thread(target=flood)
    flooding.start()
    flooding.join()
    execution_id = stack.send(one, "me")
    wait_status(stack, execution_id, "COMPLETE")
    assert stack.call("GET", f"/actors/{many}/messages")["messages"] > 300
    accepted, started = (shown(stack, execution_id)["timeline"][k] for k in ("accepted", "started"))
    assert accepted[:16] == started[:16] or accepted < started
    stack.call("DELETE", f"/actors/{many}")
