"""Many writers through two API processes: every number given once, and none left out."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from abaco_proto import events as ev
from stack import Stack


def at_once(
    count: int, apis: list[httpx.Client], call: Callable[[httpx.Client, int], str]
) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda n: call(apis[n % len(apis)], n), range(count)))


def test_fifty_registrations_of_one_name(stack: Stack) -> None:
    def register(api: httpx.Client, _: int) -> str:
        body = {"name": "crowd", "image": "abaco-test/quick", "min_workers": 0}
        answer = api.post("/actors", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["result"]["id"])

    with stack.second_api() as other:
        made = at_once(50, [stack.http, other], register)
    assert sorted(made) == sorted(f"crowd_{n}" for n in range(50))


def test_two_hundred_messages_to_one_actor(stack: Stack) -> None:
    actor_id = stack.register("flood", "abaco-test/quick", max_workers=8)

    def send(api: httpx.Client, n: int) -> str:
        answer = api.post(f"/actors/{actor_id}/messages", data={"message": f"{n}"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["result"]["execution_id"])

    with stack.second_api() as other:
        sent = at_once(200, [stack.http, other], send)
    assert sorted(sent) == sorted(f"{actor_id}_exc_{n}" for n in range(200))
    stack.wait_complete(sent, seconds=300)
    messages = {
        r.event.execution_id: r.event.ordinal
        for r in stack.events()
        if isinstance(r.event, ev.MessageReceived) and r.event.actor_id == actor_id
    }
    assert list(messages.values()) == list(range(200))
    finished = stack.finished()
    assert all(finished[execution_id] == 1 for execution_id in sent)
