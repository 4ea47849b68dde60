"""kill -9 from outside for what runs in a container: another try, or abandoned with the reason."""

import os
import signal
from collections.abc import Iterator

import docker
import pytest

from abaco_proto import events as ev
from containers import left_of
from servers import scratch_folder
from stack import Stack, eventually, read_log

ATTEMPTS = 2


@pytest.fixture
def hasty_stack(test_images: None) -> Iterator[Stack]:
    with scratch_folder() as folder:
        stack = Stack(folder / "data", max_attempts=str(ATTEMPTS), retry_seconds="0.1")
        try:
            stack.up()
            yield stack
        finally:
            stack.http.close()
            stack.down()


def kill(container_id: str) -> None:
    """The engine was not asked: it finds out."""
    client = docker.from_env()
    try:
        pid = client.api.inspect_container(container_id)["State"]["Pid"]
        assert pid > 0, "it has ended by itself"
        os.kill(pid, signal.SIGKILL)
    finally:
        client.close()


def started(stack: Stack, execution_id: str, attempt: int) -> str:
    """The container of an attempt, once it runs."""

    url = stack.status()["nats_url"]

    def container_id() -> str:
        events = [recorded.event for recorded in read_log(url)]
        runs = [e for e in events if isinstance(e, ev.ExecutionStarted)]
        mine = [e for e in runs if (e.execution_id, e.attempt) == (execution_id, attempt)]
        return mine[0].container_id if mine else ""

    return eventually(container_id, what=f"attempt {attempt} of {execution_id} runs")


def test_a_run_is_tried_again(stack: Stack) -> None:
    actor_id = stack.register("stabbed", "abaco-test/numbers")
    stack.wait_ready(actor_id)
    execution_id = stack.send(actor_id, "50")
    kill(started(stack, execution_id, 1))
    stack.wait_complete([execution_id])
    assert stack.finished()[execution_id] == 1
    assert stack.logs(execution_id) == "".join(f"{n}\n" for n in range(1, 51))
    stack.call("DELETE", f"/actors/{actor_id}")


def test_a_sandbox_that_waits_is_replaced(stack: Stack) -> None:
    actor_id = stack.register("stabbed-asleep", "abaco-test/quick", min_workers=1)
    stack.wait_ready(actor_id)
    host_id = stack.host_id()
    [waiting] = left_of(actor_id, host_id)
    kill(waiting["Id"])

    def another() -> bool:
        return [c["State"] for c in left_of(actor_id, host_id) if c["Id"] != waiting["Id"]] == [
            "running"
        ]

    eventually(another, what="another sandbox waits")
    stack.wait_complete([stack.send(actor_id, "hello")])
    stack.call("DELETE", f"/actors/{actor_id}")


def test_a_run_that_is_killed_each_time_is_abandoned(hasty_stack: Stack) -> None:
    stack = hasty_stack
    actor_id = stack.register("stabbed-again", "abaco-test/numbers")
    stack.wait_ready(actor_id)
    execution_id = stack.send(actor_id, "600")
    for attempt in range(1, ATTEMPTS + 1):
        kill(started(stack, execution_id, attempt))
    eventually(lambda: stack.status_of(execution_id) == "ERROR", what="abandoned")
    [event] = [r.event for r in stack.events() if isinstance(r.event, ev.ExecutionAbandoned)]
    assert (event.execution_id, event.attempts) == (execution_id, ATTEMPTS)
    assert "without a report" in event.reason
    assert stack.finished()[execution_id] == 0
    stack.wait_complete([stack.send(actor_id, "1")])
