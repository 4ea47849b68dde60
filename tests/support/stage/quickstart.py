"""The five steps of the quickstart, as a user types them, and exactly what they answer."""

from typing import Any

from abaco_local.cli.quickstart import Request
from stack import Stack, eventually

VERSION = "0.1.0"


def ask(stack: Stack, path: str, data: str = "") -> dict[str, Any]:
    """The whole answer, by ``curl`` where there is one."""
    answer: dict[str, Any] = Request(f"{stack.url}{path}", data, stack.token).send()
    return answer


def curl(stack: Stack, path: str, data: str = "") -> dict[str, Any]:
    """The answer to a request that must work."""
    answer = ask(stack, path, data)
    assert set(answer) == {"status", "msg", "result", "version"}
    assert answer["status"] == "success"
    assert answer["version"] == VERSION
    return answer


def walk(stack: Stack, name: str) -> None:
    """Register, send, and read, as an actor of this name, which must be the first."""
    made = curl(stack, "/actors", f"image=jstubbs/abaco_test&name={name}")
    assert made["msg"] == "Actor created successfully."
    expected: dict[str, Any] = {
        "description": None,
        "executions": {},
        "id": f"{name}_0",
        "image": "jstubbs/abaco_test",
        "name": name,
        "state": "",
        "status": "SUBMITTED",
        "subscriptions": [],
    }
    assert made["result"].items() >= expected.items()

    actor = f"/actors/{name}_0"
    # Another process may answer, which has not heard of it for the first milliseconds.
    eventually(lambda: (ask(stack, actor)["result"] or {}).get("status") == "READY", what="READY")
    assert curl(stack, actor)["msg"] == "Actor retrieved successfully."
    two = [f"{name}_0_wkr_0", f"{name}_0_wkr_1"]
    eventually(lambda: [w["id"] for w in curl(stack, f"{actor}/workers")["result"]] == two)

    sent = curl(stack, f"{actor}/messages", "message=execute yourself")
    assert sent["msg"] == "The request was successful"
    assert sent["result"]["msg"] == "execute yourself"
    assert sent["result"]["execution_id"] == f"{name}_0_exc_0"

    one = f"{actor}/executions/{name}_0_exc_0"
    eventually(lambda: curl(stack, one)["result"]["status"] == "COMPLETE", what="COMPLETE")
    listed = curl(stack, f"{actor}/executions")
    assert listed["msg"] == "Actor executions retrieved successfully."
    totals = listed["result"]
    assert totals["ids"] == [f"{name}_0_exc_0"]
    assert totals["total_executions"] == 1
    assert isinstance(totals["total_cpu"], int)
    assert isinstance(totals["total_io"], int)
    # It sleeps for two seconds; a busy engine notes a start late.
    assert 1.5 <= totals["total_runtime"] < 30.0

    logs = curl(stack, f"{one}/logs")
    assert logs["msg"] == "Logs retrieved successfully."
    assert isinstance(logs["result"], str)
    assert logs["result"].startswith("Contents of MSG: execute yourself\nEnvironment:\n")
    assert "MSG=execute yourself\n" in logs["result"]
