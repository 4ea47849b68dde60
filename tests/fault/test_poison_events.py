"""Poison in the log: each service logs it once and continues, also after a restart."""

import asyncio
import json
from collections.abc import Sequence

import builders as b
from abaco_jetstream import Connection
from abaco_proto import events as ev
from abaco_proto.envelope import TIME, encode
from stack import Stack, eventually

SERVICES = ("api", "projector", "scheduler", "worker")
LAST_MOMENT = "9999-12-31T23:59:59.999999Z"
Message = tuple[str, bytes, dict[str, str]]


def append(stack: Stack, messages: Sequence[Message]) -> list[int]:
    """Put bytes into the log as they are; where each stands."""

    async def publish() -> list[int]:
        connection = Connection(stack.status()["nats_url"], name="test", timeout=5)
        await connection.open()
        try:
            answers = [await connection.request(*message) for message in messages]
        finally:
            await connection.close()
        return [int(answer["seq"]) for answer in answers]

    return asyncio.run(publish())


def poison(actor_id: str, host_id: str) -> dict[str, Message]:
    """Unreadable events, everywhere that a service reads."""
    subject = f"abaco.event.default.{actor_id}"
    garbage = b"\xff\xfe\x00 not json"
    newer = b'{"type":"execution.finished","actor_id":7,"version":"of the year 2031"}'
    return {
        "garbage in the inbox": (f"{subject}.message.received", garbage, {}),
        "nothing at all": (f"{subject}.message.received", b"", {}),
        "brackets": (f"{subject}.actor.state_set", b'{"type":' + b"[" * 100_000, {}),
        "a type from the future": (f"{subject}.moon.landed", b'{"type":"moon.landed"}', {}),
        "a version from the future": (f"{subject}.execution.finished", newer, {}),
        "a definition": (f"{subject}.actor.updated", garbage, {}),
        "work for a host": (f"{subject}.execution.assigned.{host_id}", garbage, {}),
        "a worker for a host": (f"{subject}.worker.requested.{host_id}", b"{}", {}),
        "a halt": (f"{subject}.execution.halt_requested", b"[]", {}),
        "the last moment": (f"{subject}.moon.landed", b"{}", {TIME: LAST_MOMENT}),
        "a time before time": (f"{subject}.moon.set", b"{}", {TIME: "0001-01-01T00:00:00+14:00"}),
        "a short subject": ("abaco.event.x", b"1", {}),
        "a long subject": (f"{subject}.a.b.c.d.e.f.g", b"null", {}),
    }


def strange(actor_id: str) -> list[Message]:
    """What anybody can read, and what cannot be: it has no headers, no order, no end of time."""
    prefix = f"abaco.event.default.{actor_id}"
    found: list[tuple[str, ev.Event]] = [
        ("execution.finished", b.finished(99, actor_id)),
        ("execution.started", b.started(98, actor_id, attempt=7)),
        ("worker.ready", b.ready(97, actor_id, revision=9)),
        ("execution.failed", b.execution_failed(0, actor_id, attempt=9)),
        ("inbox.purged", ev.InboxPurged(actor_id=actor_id, up_to_ordinal=-1)),
    ]
    times: list[dict[str, str]] = [{}, {TIME: LAST_MOMENT}, {TIME: "yesterday"}]
    return [(f"{prefix}.{kind}", encode(e), h) for kind, e in found for h in times]


def runs(stack: Stack, actor_id: str, first: int) -> None:
    """Whatever comes in is run, in the order of the inbox."""
    sent = [stack.send(actor_id, f"{n}") for n in range(3)]
    assert sent == [f"{actor_id}_exc_{first + n}" for n in range(3)]
    stack.wait_complete(sent)
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1, 1, 1]


def log_of(stack: Stack, name: str) -> str:
    return (stack.folder / "logs" / f"{name}.log").read_text(errors="replace")


def said_once(stack: Stack, name: str, line: str) -> bool:
    def count() -> int:
        return log_of(stack, name).count(line)

    return eventually(count, what=f"{name} says: {line}") == 1


def test_what_nobody_understands_stops_nobody(new_stack: Stack) -> None:
    stack = new_stack
    actor_id = stack.register("poison", "abaco-test/quick")
    stack.register("listener", "abaco-test/quick")
    stack.call(
        "POST",
        "/actors/listener_0/subscriptions",
        json={"event_pattern": "poison_0.execution.finished"},
    )
    stack.wait_ready(actor_id)
    runs(stack, actor_id, 0)
    wanted = poison(actor_id, stack.host_id())
    places = dict(zip(wanted, append(stack, list(wanted.values())), strict=True))
    append(stack, strange(actor_id))
    runs(stack, actor_id, 3)

    # Each says so, once for each.
    for name, kinds in {
        "projector": set(wanted),
        "scheduler": set(wanted),
        "worker": {"work for a host", "a worker for a host", "a halt"},
        "api": {"brackets", "a definition"},
    }.items():
        for what in kinds:
            line = f"event {places[what]} of '{wanted[what][0]}' is skipped: it cannot be decoded"
            assert said_once(stack, name, line), f"{name} on {what}"
        assert "Traceback" not in log_of(stack, name)

    # The API shows what is there.
    for what, place in places.items():
        subject, body, _ = wanted[what]
        if subject == "abaco.event.x":  # it is another tenant's
            continue
        shown = stack.call("GET", f"/events/{place}")
        assert shown["seq"] == place
        assert (shown["data"] is None) == (body in (b"", b"null") or not is_json(body)), what
        assert shown["type"] == ".".join(subject.split(".")[4:6])
    assert stack.call("GET", f"/actors/{actor_id}")["status"] == "READY"
    assert stack.call("GET", f"/actors/{actor_id}/executions")["total_executions"] == 6

    # So it is after a restart of all, and in tables that are built anew.
    for name in SERVICES:
        stack.kill(name)
    eventually(stack.ready, what="ready again")
    runs(stack, actor_id, 6)
    for words, said_of in ((("verify",), "clean: "), (("rebuild",), "rebuilt: ")):
        done = stack.abaco(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(said_of)
    assert stack.call("GET", f"/actors/{actor_id}/executions")["total_executions"] == 9
    for name in SERVICES:
        assert "Traceback" not in log_of(stack, name)


def is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True
