"""Workers that a person stops, on the whole system."""

import pytest

from abaco_proto import events as ev
from stack import Stack, eventually


def names(stack: Stack, actor_id: str) -> list[str]:
    return [worker["ch_name"] for worker in stack.try_list(f"/actors/{actor_id}/workers")]


def requests(stack: Stack, actor_id: str) -> int:
    asked = (r.event for r in stack.events() if isinstance(r.event, ev.WorkerRequested))
    return sum(event.actor_id == actor_id for event in asked)


@pytest.mark.parametrize("underscore", ["_", "%5F"])
def test_a_deleted_worker_is_one_fewer_until_it_is_needed_again(
    stack: Stack, underscore: str
) -> None:
    actor_id = stack.register("fewer", "abaco-test/slow", min_workers=2, max_workers=2)
    eventually(lambda: len(set(names(stack, actor_id))) == 2, what="two workers")
    stack.wait_ready(actor_id)
    _, last = names(stack, actor_id)
    name = last.replace("_", underscore)

    stack.call("DELETE", f"/actors/{actor_id}/workers/{name}")
    eventually(lambda: len(names(stack, actor_id)) == 1, what="one worker")
    assert last not in names(stack, actor_id)
    # Another actor's worker is asked for by a plan that has seen the stop.
    other = stack.register("other", "abaco-test/quick", min_workers=1)
    stack.wait_ready(other)
    assert requests(stack, actor_id) == 2, "it was not replaced"

    for n in range(4):
        stack.send(actor_id, f"{n}")
    eventually(lambda: requests(stack, actor_id) == 3, what="a worker for the messages")
    for each in (actor_id, other):
        stack.call("DELETE", f"/actors/{each}")


def test_asking_for_the_same_number_again_brings_a_deleted_worker_back(stack: Stack) -> None:
    actor_id = stack.register("back", "abaco-test/quick", min_workers=1)
    eventually(lambda: len(names(stack, actor_id)) == 1, what="a worker")
    stack.call("DELETE", f"/actors/{actor_id}/workers/{names(stack, actor_id)[0]}")
    eventually(lambda: names(stack, actor_id) == [], what="no worker")
    stack.call("POST", f"/actors/{actor_id}/workers", data={"num": "1"})
    eventually(lambda: len(names(stack, actor_id)) == 1, what="a worker again")
    stack.call("DELETE", f"/actors/{actor_id}")
