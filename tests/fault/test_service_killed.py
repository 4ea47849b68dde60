"""kill -9 of each service in the middle of running executions: all end, each reported once."""

import pytest

from containers import left_of
from stack import Stack, eventually


@pytest.mark.parametrize("service", ["worker", "scheduler", "projector", "api"])
def test_nothing_is_lost_or_reported_twice(stack: Stack, service: str) -> None:
    actor_id = stack.register(f"killed-{service}", "abaco-test/slow", max_workers=4)
    stack.wait_ready(actor_id)
    sent = [stack.send(actor_id, f"{n}") for n in range(10)]
    eventually(lambda: stack.status_of(sent[0]) == "RUNNING", what="the first runs")
    before = stack.pid(service)
    stack.kill(service)
    eventually(lambda: stack.pid(service) not in (None, before), what="the supervisor restarts it")
    eventually(stack.ready, what="ready again")
    sent += [stack.send(actor_id, f"{n}") for n in range(10, 12)]
    stack.wait_complete(sent)
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1] * 12
    assert [stack.logs(e) for e in sent] == [f"got {n}\ndone\n" for n in range(12)]
    stack.call("DELETE", f"/actors/{actor_id}")
    host_id = stack.host_id()
    eventually(lambda: not left_of(actor_id, host_id), what="no container is left")


@pytest.mark.parametrize("service", ["worker", "scheduler"])
def test_a_deleted_actor_stops_although_who_halts_it_is_killed(stack: Stack, service: str) -> None:
    """The service is killed just before the deletion: it learns of it only from the log."""
    actor_id = stack.register(f"deleted-{service}", "abaco-test/numbers", min_workers=1)
    stack.wait_ready(actor_id)
    running = stack.send(actor_id, "600")
    eventually(lambda: stack.status_of(running) == "RUNNING", what="it runs")
    stack.kill(service)
    stack.call("DELETE", f"/actors/{actor_id}")
    eventually(lambda: stack.status_of(running) == "HALTED", what=f"{running} is HALTED")
    assert stack.finished()[running] == 1
    host_id = stack.host_id()
    eventually(lambda: not left_of(actor_id, host_id), what="no container is left")
