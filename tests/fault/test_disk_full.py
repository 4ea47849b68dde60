"""The log's disk is full: nothing is accepted that is not kept, and room is all that is needed."""

from collections.abc import Iterator

import pytest

from disks import Disk, small_disk
from servers import scratch_folder
from stack import Stack, eventually

MEBIBYTES = 96
MANY = 400


@pytest.fixture
def disk_and_stack(test_images: None) -> Iterator[tuple[Disk, Stack]]:
    with scratch_folder() as folder, small_disk(folder / "data" / "nats", MEBIBYTES) as disk:
        stack = Stack(folder / "data", host_capacity="8")
        try:
            stack.up()
            yield disk, stack
        finally:
            disk.empty()
            stack.http.close()
            stack.down()


def log_of(stack: Stack, name: str) -> str:
    return (stack.folder / "logs" / f"{name}.log").read_text(errors="replace")


def test_a_full_disk_loses_nothing_and_needs_nobody(disk_and_stack: tuple[Disk, Stack]) -> None:
    disk, stack = disk_and_stack
    actor_id = stack.register("full", "abaco-test/slow")
    stack.wait_ready(actor_id)
    path = f"/actors/{actor_id}/messages"
    accepted = [stack.send(actor_id, f"before {n}") for n in range(4)]

    disk.fill()
    refused = 0
    for n in range(MANY):
        answer = stack.http.post(path, json={"message": f"{n} " + "x" * 2000})
        if answer.status_code == 200:
            accepted.append(answer.json()["result"]["execution_id"])
            continue
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"] == "unavailable"
        assert "the log (NATS)" in answer.json()["msg"]
        assert int(answer.headers["Retry-After"]) >= 1
        refused += 1
        if refused == 3:
            break
    assert refused == 3, "the disk was not full"

    # Queries are answered, and each service that cannot append logs it once.
    shown = stack.call("GET", f"/actors/{actor_id}/executions")
    assert shown["total_executions"] == len(accepted)
    eventually(
        lambda: "waiting until 16 MiB are free" in log_of(stack, "healer"), what="it is told"
    )
    for name in ("api", "worker", "scheduler"):
        for kind in ("event", "log"):
            assert log_of(stack, name).count(f"NATS rejects appends to abaco.{kind}.>") <= 1, name
    assert log_of(stack, "api").count("NATS rejects appends to abaco.event.>") == 1

    disk.empty()

    def accepts() -> str:
        answer = stack.http.post(path, json={"message": "after"})
        assert answer.status_code in (200, 503), answer.text
        return answer.json()["result"]["execution_id"] if answer.status_code == 200 else ""

    accepted.append(eventually(accepts, seconds=60, what="messages are accepted again"))
    stack.wait_complete(accepted, seconds=180)
    messages, finished = stack.messages(actor_id), stack.finished()
    assert set(accepted) <= set(messages)
    assert len(messages) - len(accepted) <= refused, "what was refused may be in the log, no more"
    assert [finished[execution_id] for execution_id in accepted] == [1] * len(accepted)
    verified = stack.abaco("verify")
    assert verified.stdout.startswith("clean: "), verified.stdout + verified.stderr
    assert log_of(stack, "healer").count("restarting NATS") == 1
