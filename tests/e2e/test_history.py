"""What an auditor types: prove it, take it along, put it up elsewhere, prove it again."""

from pathlib import Path
from typing import Any

import pytest

from servers import scratch_folder
from stack import Stack, eventually


def answers(stack: Stack, actor_id: str) -> list[Any]:
    """What queries say of what has happened."""
    path = f"/actors/{actor_id}/executions"
    ids = stack.call("GET", path)["ids"]
    own = [stack.call("GET", f"{path}/{execution_id}") for execution_id in ids]
    return [stack.call("GET", path), own, [stack.logs(execution_id) for execution_id in ids]]


def said(stack: Stack, *words: str) -> str:
    done = stack.abaco(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_history_moves_to_an_empty_machine(stack: Stack, tmp_path: Path) -> None:
    actor_id = stack.register("history", "jstubbs/abaco_test")
    stack.wait_ready(actor_id)
    stack.wait_complete([stack.send(actor_id, f"message {n}") for n in range(3)])
    eventually(lambda: all(answers(stack, actor_id)[2]) or None, what="the output is stored")
    before = answers(stack, actor_id)
    assert said(stack, "verify").startswith("clean: ")
    assert said(stack, "rebuild").startswith("rebuilt: ")
    assert answers(stack, actor_id) == before
    file = tmp_path / "history.gz"
    head = said(stack, "export", str(file)).strip().rpartition("head ")[2]

    with scratch_folder() as folder:
        other = Stack(folder / "data")
        try:
            refused = other.abaco("verify")
            assert refused.returncode == 1
            assert refused.stderr == "abaco: there is no stack here: `abaco up` starts one\n"
            said(other, "up", "--servers")
            assert "restored: " in said(other, "restore", str(file))
            other.up()
            eventually(
                lambda: other.http.get(f"/actors/{actor_id}").is_success or None,
                what="the actor is in the read models",
            )
            eventually(
                lambda: answers(other, actor_id) == before or None,
                what="queries answer as before",
            )
            assert said(other, "verify", "--noted", head).startswith("clean: ")
            refused = other.abaco("restore", str(file))
            assert refused.returncode == 1
            assert refused.stderr.splitlines()[-1].startswith("abaco: the log ")
            said(other, "down")
            refused = other.abaco("verify")
            assert refused.returncode == 1
            assert refused.stderr.startswith("abaco: the log (NATS) does not answer")
        finally:
            other.http.close()
            other.down()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["verify", "--noted", "x"], "--noted: expected a sequence, a colon and 64 hexadecimal"),
        (["replay", "--until", "never", "--into", "x"], "--until: expected a sequence, or a time"),
        (["replay", "--until", "2026-01-01T00:00:00", "--into", "x"], "--until: a time needs"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(stack: Stack, words: list[str], line: str) -> None:
    done = stack.abaco(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"abaco: {line}")
    assert done.stderr.count("\n") == 1
