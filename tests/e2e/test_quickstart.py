"""The five steps of the quickstart, as a user types them, and exactly what they answer."""

import json
import subprocess
from itertools import pairwise
from typing import Any

from stack import Stack, eventually

VERSION = "0.1.0"


def curl(stack: Stack, path: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        ["curl", "-s", *words, f"{stack.url}{path}"], capture_output=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert set(answer) == {"status", "msg", "result", "version"}
    assert answer["status"] == "success"
    assert answer["version"] == VERSION
    return answer


def test_the_quickstart(stack: Stack) -> None:
    made = curl(stack, "/actors", "-d", "image=jstubbs/abaco_test&name=quickstart")
    assert made["msg"] == "Actor created successfully."
    expected: dict[str, Any] = {
        "description": None,
        "executions": {},
        "id": "quickstart_0",
        "image": "jstubbs/abaco_test",
        "name": "quickstart",
        "state": "",
        "status": "SUBMITTED",
        "subscriptions": [],
    }
    assert made["result"].items() >= expected.items()

    actor = "/actors/quickstart_0"
    eventually(lambda: curl(stack, actor)["result"]["status"] == "READY", what="READY")
    assert curl(stack, actor)["msg"] == "Actor retrieved successfully."
    two = ["quickstart_0_wkr_0", "quickstart_0_wkr_1"]
    eventually(lambda: [w["id"] for w in curl(stack, f"{actor}/workers")["result"]] == two)

    sent = curl(stack, f"{actor}/messages", "-d", "message=execute yourself")
    assert sent["msg"] == "The request was successful"
    assert sent["result"]["msg"] == "execute yourself"
    assert sent["result"]["execution_id"] == "quickstart_0_exc_0"

    one = f"{actor}/executions/quickstart_0_exc_0"
    eventually(lambda: curl(stack, one)["result"]["status"] == "COMPLETE", what="COMPLETE")
    listed = curl(stack, f"{actor}/executions")
    assert listed["msg"] == "Actor executions retrieved successfully."
    totals = listed["result"]
    assert totals["ids"] == ["quickstart_0_exc_0"]
    assert totals["total_executions"] == 1
    assert isinstance(totals["total_cpu"], int)
    assert isinstance(totals["total_io"], int)
    assert 2.0 <= totals["total_runtime"] < 30.0

    logs = curl(stack, f"{one}/logs")
    assert logs["msg"] == "Logs retrieved successfully."
    assert isinstance(logs["result"], str)
    assert logs["result"].startswith("Contents of MSG: execute yourself\nEnvironment:\n")
    assert "MSG=execute yourself\n" in logs["result"]


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
