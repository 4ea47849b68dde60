"""Rows to results."""

from datetime import timedelta
from typing import Any

import msgspec

import builders as b
from abaco_api.domain import views
from abaco_proto import events as ev
from abaco_proto.actor import Actor
from rows import ACTOR, EXECUTION


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


def test_the_isolation_of_an_actor_is_null_where_the_host_decides() -> None:
    def isolation(definition: ev.Definition) -> Any:
        return shown(
            views.actor({**ACTOR, "definition": msgspec.json.encode(definition).decode()})
        )["isolation"]

    assert isolation(b.definition()) is None
    assert isolation(b.definition(isolation=ev.Isolation.CONTAINER)) == "container"
    assert isolation(b.definition(isolation=ev.Isolation("of a newer version")))
    folded = Actor(actor_id="foo_0", definition=b.definition(isolation=ev.Isolation.SANDBOX))
    assert shown(views.actor_of_fold(folded))["isolation"] == "sandbox"
    assert shown(views.actor_of_fold(Actor(actor_id="foo_0")))["isolation"] is None


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


def test_output_is_shown_for_as_long_as_its_actor_says() -> None:
    ended = {**EXECUTION, "log_ex": 60}
    assert not views.expired(ended, b.T0 + timedelta(seconds=61.9))
    assert views.expired(ended, b.T0 + timedelta(seconds=62))
    assert not views.expired({**ended, "log_ex": None}, b.T0 + timedelta(days=9999))
    assert not views.expired({**ended, "finished_at": None}, b.T0 + timedelta(days=9999))
