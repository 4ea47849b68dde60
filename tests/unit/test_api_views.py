"""Rows to results."""

from datetime import timedelta
from typing import Any

import msgspec

import builders as b
from abaco_api import views

EXECUTION: dict[str, Any] = {
    "execution_id": "foo_0_exc_0",
    "actor_id": "foo_0",
    "ordinal": 0,
    "status": "COMPLETE",
    "status_message": "",
    "attempt": 1,
    "worker_id": "foo_0_wkr_0",
    "host_id": "h1",
    "container_id": "c0ffee",
    "image_digest": "sha256:0123",
    "start_kind": "cold",
    "exit_code": 0,
    "final_state": msgspec.json.encode(b.final_state()).decode(),
    "cpu_ns": 9_000_000,
    "io_bytes": 736,
    "runtime_ms": 0.5,
    "memory_bytes": 50_000_000,
    "network_bytes": 12,
    "halt_requested": False,
    "rerun_of": None,
    "log_bytes": 33,
    "log_truncated": False,
    "message_received_at": b.T0,
    "taken_at": b.T0 + timedelta(seconds=0.5),
    "started_at": b.T0 + timedelta(seconds=1),
    "first_output_at": None,
    "finished_at": b.T0 + timedelta(seconds=2),
    "recorded_at": b.T0 + timedelta(seconds=2.5),
}
ACTOR: dict[str, Any] = {
    "actor_id": "foo_0",
    "definition": msgspec.json.encode(b.definition()).decode(),
    "status": "READY",
    "status_message": "",
    "state": '{"n":1}',
    "state_version": 3,
    "subscriptions": '{"foo_0_sub_1": "bar_0.>"}',
    "revision": 1,
    "registered_at": b.T0,
    "updated_at": b.T0,
    "total_executions": 2,
    "total_complete": 1,
    "total_error": 0,
    "total_halted": 1,
    "total_purged": 0,
    "total_cpu_ns": 9,
    "total_io_bytes": 8,
    "total_runtime_ms": 2004.5,
    "ids": ["foo_0_exc_0", "foo_0_exc_1"],
}


def shown(result: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(result))


def test_an_actor() -> None:
    actor = shown(views.actor(ACTOR))
    contract = {
        "description": None,
        "executions": {},
        "id": "foo_0",
        "image": "jstubbs/abaco_test",
        "name": "foo",
        "state": {"n": 1},
        "status": "READY",
        "subscriptions": [
            {"subscription_id": "foo_0_sub_1", "actor_id": "foo_0", "event_pattern": "bar_0.>"}
        ],
    }
    assert {key: actor[key] for key in contract} == contract
    assert actor["create_time"] == "2026-01-02T03:04:05.000000Z"


def test_the_state_of_an_actor_without_one_is_an_empty_text() -> None:
    assert shown(views.state({**ACTOR, "state": '""'}))["state"] == ""


def test_executions() -> None:
    assert shown(views.executions(ACTOR)) == {
        "actor_id": "foo_0",
        "ids": ["foo_0_exc_0", "foo_0_exc_1"],
        "total_cpu": 9,
        "total_executions": 2,
        "total_complete": 1,
        "total_error": 0,
        "total_halted": 1,
        "total_purged": 0,
        "total_io": 8,
        "total_runtime": 2.0045,
    }


def test_an_execution() -> None:
    execution = shown(views.execution(EXECUTION))
    assert execution["runtime"] == 0.0005
    assert execution["cpu"] == 9_000_000
    assert execution["io"] == 736
    assert execution["final_state"]["status"] == "exited"
    assert execution["message_received_time"] == "2026-01-02T03:04:05.000000Z"
    assert execution["start_time"] < execution["finish_time"]
    assert (execution["memory"], execution["network"]) == (50_000_000, 12)
    assert (execution["halt_requested"], execution["rerun_of"]) == (False, None)


def test_the_timeline_of_an_execution() -> None:
    assert shown(views.execution(EXECUTION))["timeline"] == {
        "accepted": "2026-01-02T03:04:05.000000Z",
        "taken": "2026-01-02T03:04:05.500000Z",
        "started": "2026-01-02T03:04:06.000000Z",
        "first_output": None,
        "ended": "2026-01-02T03:04:07.000000Z",
        "recorded": "2026-01-02T03:04:07.500000Z",
    }


def test_to_a_client_what_is_assigned_still_waits() -> None:
    waiting = {**EXECUTION, "status": "ASSIGNED", "finished_at": None, "final_state": None}
    execution = shown(views.execution(waiting))
    assert execution["status"] == "SUBMITTED"
    assert execution["finish_time"] is None
    assert execution["final_state"] is None


def chunk(offset: int, data: bytes) -> dict[str, Any]:
    return {"output_offset": offset, "data": data}


def test_output_in_pieces_is_one_text() -> None:
    assert views.output([]) == ""
    assert views.output([chunk(0, b"\xc3"), chunk(1, b"\xa9!")]) == "é!"


def test_output_is_never_decoded_blindly() -> None:
    assert views.output([chunk(0, b"a\x00\xff\n")]) == "a\x00\ufffd\n"


def test_output_that_overlaps_is_there_once() -> None:
    assert views.output([chunk(0, b"abc"), chunk(1, b"bcd"), chunk(2, b"c")]) == "abcd"


def test_output_that_never_came_leaves_a_mark() -> None:
    assert views.output([chunk(0, b"a"), chunk(3, b"d")]) == "a\n[2 bytes are missing here]\nd"
