"""The five steps of the quickstart, and what else a user types first."""

from itertools import pairwise

import quickstart
from stack import Stack


def test_the_quickstart(stack: Stack) -> None:
    quickstart.walk(stack, "quickstart")


def test_the_details_of_an_execution(stack: Stack) -> None:
    actor_id = stack.register("details", "abaco-test/quick", default_environment={"A": "1"})
    answer = stack.call("POST", f"/actors/{actor_id}/messages?B=2&A=3", data={"message": "x"})
    stack.wait_complete([answer["execution_id"]])
    found = stack.call("GET", f"/actors/{actor_id}/executions/{answer['execution_id']}")
    assert found["exit_code"] == 0
    assert found["final_state"]["status"] == "exited"
    assert found["runtime"] > 0
    assert found["message_received_time"] < found["start_time"] <= found["finish_time"]
    assert found["worker_id"].startswith(f"{actor_id}_wkr_")
    assert stack.logs(answer["execution_id"]) == "got x\n"


def test_the_environment_of_an_execution(stack: Stack) -> None:
    actor_id = stack.register(
        "env", "jstubbs/abaco_test", default_environment={"A": "1", "C": "4"}, min_workers=1
    )
    stack.call("POST", f"/actors/{actor_id}/state", json={"state": {"count": 1}})
    answer = stack.call("POST", f"/actors/{actor_id}/messages?B=2&A=3", json={"message": [1]})
    stack.wait_complete([answer["execution_id"]])
    lines = stack.logs(answer["execution_id"]).splitlines()
    assert {"A=3", "B=2", "C=4", "MSG=[1]", '_abaco_actor_state={"count":1}'} <= set(lines)
    assert f"_abaco_execution_id={answer['execution_id']}" in lines


def test_a_message_brings_a_worker_where_none_is_kept(stack: Stack) -> None:
    actor_id = stack.register("sleeper", "abaco-test/quick", min_workers=0)
    assert not stack.call("GET", f"/actors/{actor_id}/workers")
    stack.wait_complete([stack.send(actor_id, "wake up")])


def test_a_stateful_actor_runs_one_message_after_another(stack: Stack) -> None:
    actor_id = stack.register("stateful", "abaco-test/slow", stateless=False)
    sent = [stack.send(actor_id, f"{n}") for n in range(4)]
    stack.wait_complete(sent)
    runs = [stack.call("GET", f"/actors/{actor_id}/executions/{e}") for e in sent]
    for before, after in pairwise(runs):
        assert before["finish_time"] <= after["start_time"]
    assert len({run["worker_id"] for run in runs}) == 1
