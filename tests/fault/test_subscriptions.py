"""kill -9 of every process in turn: a subscribed actor gets each event once. And circles end."""

import json

from abaco_proto import events as ev
from stack import Stack, eventually

EVERY_PROCESS = ("worker", "scheduler", "projector", "api", "nats", "postgres")


def messages(stack: Stack, actor_id: str) -> list[ev.MessageReceived]:
    """What is in an inbox, in the order of the log."""
    events = (recorded.event for recorded in stack.events())
    received = [e for e in events if isinstance(e, ev.MessageReceived)]
    return [e for e in received if e.actor_id == actor_id]


def finished(stack: Stack, actor_id: str) -> list[int]:
    """Where the ends of an actor's executions stand in the log."""
    return [
        recorded.sequence
        for recorded in stack.events()
        if isinstance(recorded.event, ev.ExecutionFinished) and recorded.event.actor_id == actor_id
    ]


def kill(stack: Stack, name: str) -> None:
    """Kill a process, and wait until all is well again."""
    before = stack.pid(name)
    stack.kill(name)
    eventually(lambda: stack.pid(name) not in (None, before), what=f"{name} again")
    eventually(stack.ready, what="ready again")


def test_each_event_once_whichever_process_is_killed(new_stack: Stack) -> None:
    stack = new_stack
    source = stack.register("source", "abaco-test/slow", max_workers=2)
    listener = stack.register("listener", "abaco-test/slow", max_workers=2)
    stack.wait_ready(source)
    stack.wait_ready(listener)
    wanted = {"event_pattern": f"{source}.execution.finished"}
    stack.call("POST", f"/actors/{listener}/subscriptions", json=wanted)
    sent: list[str] = []
    for name in EVERY_PROCESS:
        sent += [stack.send(source, f"before {name}") for _ in range(2)]
        kill(stack, name)
    stack.wait_complete(sent)
    count = len(sent)
    eventually(lambda: len(messages(stack, listener)) >= count, what="all are delivered")
    stack.wait_complete([f"{listener}_exc_{n}" for n in range(count)])
    delivered = messages(stack, listener)
    assert [m.source_sequence for m in delivered] == finished(stack, source)
    assert [m.ordinal for m in delivered] == list(range(count))
    bodies = [json.loads(m.message) for m in delivered]
    assert sorted(body["data"]["execution_id"] for body in bodies) == sorted(sent)
    assert [m.sender for m in delivered] == [source] * count


def test_actors_that_subscribe_to_each_other_stop_by_themselves(stack: Stack) -> None:
    one = stack.register("ping", "abaco-test/slow", max_workers=1)
    other = stack.register("pong", "abaco-test/slow", max_workers=1)
    for actor_id, source in ((one, other), (other, one)):
        wanted = {"event_pattern": f"{source}.execution.finished"}
        stack.call("POST", f"/actors/{actor_id}/subscriptions", json=wanted)
    stack.send(one, "go")
    most = 8

    def at_the_end() -> bool:
        """Whether the last of the chain has ended: that one makes no message any more."""
        return len(finished(stack, one)) + len(finished(stack, other)) > most

    eventually(at_the_end, seconds=120, what="the chain has come to its end")
    hops = {
        recorded.hops
        for recorded in stack.events()
        if isinstance(recorded.event, ev.MessageReceived)
        and recorded.event.actor_id in (one, other)
    }
    assert hops == set(range(most + 1))
    assert len(messages(stack, one)) + len(messages(stack, other)) == most + 1
    why = stack.call("GET", f"/actors/{other}/executions/{other}_exc_0/why")
    assert why["cause"]["kind"] == "subscription"
    assert why["cause"]["actor_id"] == one
