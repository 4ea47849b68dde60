"""Postgres is gone: messages are accepted and run all the same; queries say what is wrong."""

from deadlines import prompt
from stack import Stack, eventually


def test_work_goes_on_without_postgres(stack: Stack) -> None:
    actor_id = stack.register("nopg", "abaco-test/quick")
    stack.wait_ready(actor_id)
    assert stack.abaco("stop", "postgres").returncode == 0
    try:
        sent = [stack.send(actor_id, f"{n}") for n in range(5)]
        with prompt(1):
            answer = stack.http.get(f"/actors/{actor_id}")
        assert answer.status_code == 503
        body = answer.json()
        assert (body["status"], body["result"]) == ("error", None)
        assert "ostgres" in body["msg"]
        ready = stack.http.get("/readyz")
        assert ready.status_code == 503
        assert "ostgres" in ready.text
        eventually(lambda: set(sent) <= set(stack.finished()), what="all ran")
    finally:
        assert stack.abaco("start", "postgres").returncode == 0
    stack.wait_complete(sent, seconds=120)
    assert [stack.logs(e) for e in sent] == [f"got {n}\n" for n in range(5)]
    eventually(stack.ready, what="ready again")
