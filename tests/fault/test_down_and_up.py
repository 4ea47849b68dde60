"""The whole system stopped and started again: everything is there, what waited goes on."""

import os
import signal

from containers import left_of
from engine_server import EngineServer
from stack import Stack, eventually


def test_down_and_up(new_stack: Stack) -> None:
    stack = new_stack
    actor_id = stack.register("lasting", "abaco-test/slow", max_workers=2)
    stack.call("POST", f"/actors/{actor_id}/state", json={"state": "kept"})
    stack.wait_ready(actor_id)
    sent = [stack.send(actor_id, f"{n}") for n in range(8)]
    stack.wait_complete(sent[:1])
    stack.down()
    assert all(service["pid"] is None for service in stack.status()["services"])
    stack.up()
    assert stack.call("GET", f"/actors/{actor_id}/state")["state"] == "kept"
    assert stack.logs(sent[0]) == "got 0\ndone\n"
    stack.wait_complete(sent)
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1] * 8


def test_everything_killed_at_once(new_stack: Stack) -> None:
    stack = new_stack
    actor_id = stack.register("struck", "abaco-test/slow", max_workers=2)
    stack.wait_ready(actor_id)
    sent = [stack.send(actor_id, f"{n}") for n in range(6)]
    stack.wait_complete(sent[:1])
    for service in stack.status()["services"]:
        os.kill(service["pid"], signal.SIGKILL)
    stack.up()
    stack.wait_complete(sent)
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1] * 6


def test_up_while_the_api_is_starting_again(new_stack: Stack) -> None:
    """It listens before its supervisor calls it running, and its port is its own."""
    for _ in range(3):
        old = new_stack.pid("api")
        assert old is not None
        os.kill(old, signal.SIGKILL)
        eventually(lambda old=old: new_stack.pid("api") not in (None, old), what="another one")  # type: ignore[misc]
        eventually(new_stack.ready, what="it answers")
        new_stack.up()


def test_down_removes_what_waits_on_the_engine_that_is_named(
    engine: EngineServer, engine_stack: Stack
) -> None:
    actor_id = engine_stack.register("waiting", "abaco-test/quick")
    engine_stack.wait_ready(actor_id)
    host_id = engine_stack.host_id()
    assert left_of(actor_id, host_id)
    engine_stack.down()
    assert left_of(actor_id, host_id) == []
