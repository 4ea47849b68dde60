"""An image that cannot be had, and how its actor recovers."""

from stack import Stack, eventually


def test_an_actor_with_a_missing_image_says_so_and_recovers(stack: Stack) -> None:
    actor_id = stack.register("broken", "abaco-test/no-such-image")
    sent = [stack.send(actor_id, f"{n}") for n in range(3)]
    eventually(lambda: stack.actor_status(actor_id) == "ERROR", what="ERROR")
    found = stack.call("GET", f"/actors/{actor_id}")
    assert "abaco-test/no-such-image" in found["status_message"]
    assert len(found["status_message"]) > len("abaco-test/no-such-image") + 10
    assert stack.call("GET", f"/actors/{actor_id}/messages") == {"messages": 3}

    stack.call("PUT", f"/actors/{actor_id}", json={"image": "abaco-test/quick"})
    stack.wait_ready(actor_id)
    stack.wait_complete(sent)
    assert [stack.logs(e) for e in sent] == ["got 0\n", "got 1\n", "got 2\n"]
