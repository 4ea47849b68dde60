"""NATS is gone: commands are refused at once and nothing of them happens later."""

import pytest

from abaco_proto import events as ev
from deadlines import prompt
from stack import Stack, eventually


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_commands_are_refused_and_everything_goes_on_by_itself(stack: Stack, how: str) -> None:
    actor_id = stack.register("nonats", "abaco-test/slow")
    stack.wait_ready(actor_id)
    before = [stack.send(actor_id, "before") for _ in range(3)]
    if how == "stop":
        assert stack.abaco("stop", "nats").returncode == 0
        for path in ("/actors", f"/actors/{actor_id}/messages"):
            with prompt(2):
                answer = stack.http.post(
                    path,
                    json={"message": "lost"}
                    if "messages" in path
                    else {"name": "ghost", "image": "x"},
                )
            assert answer.status_code == 503
            assert answer.json()["status"] == "error"
        assert stack.abaco("start", "nats").returncode == 0
    else:
        stack.kill("nats")
    eventually(stack.ready, what="ready again")
    after = stack.send(actor_id, "after")
    stack.wait_complete([*before, after])
    events = [r.event for r in stack.events()]
    names = {e.definition.name for e in events if isinstance(e, ev.ActorRegistered)}
    assert "ghost" not in names
    mine = [e for e in events if isinstance(e, ev.MessageReceived) and e.actor_id == actor_id]
    assert [e.message for e in mine] == ["before", "before", "before", "after"]
    finished = stack.finished()
    assert [finished[e.execution_id] for e in mine] == [1, 1, 1, 1]
