"""The cluster profile in containers: a NATS server, a scheduler and a host go, and work goes on."""

import secrets
from collections.abc import Iterator

import pytest

import images
import quickstart
from compose_stack import ComposeStack, need_images
from servers import scratch_folder
from stack import eventually


@pytest.fixture
def stack(test_images: None) -> Iterator[ComposeStack]:
    need_images()
    with scratch_folder() as folder:
        project = f"abaco-test-{secrets.token_hex(4)}"
        made = ComposeStack(folder / "secrets", project, "compose.cluster.yaml")
        try:
            made.up()
            yield made
        finally:
            made.http.close()
            made.remove()


def test_one_of_each_may_go(stack: ComposeStack) -> None:
    eventually(stack.ready, what="the API is ready")
    quickstart.walk(stack, "clustered")
    actor_id = stack.register("spread", images.QUICK, min_workers=2, max_workers=2)
    stack.wait_ready(actor_id)
    for service, number in (("nats-2", 1), ("scheduler", 1), ("worker", 1)):
        stack.container(service, number).kill()
    sent = [eventually(lambda: try_send(stack, actor_id)) for _ in range(4)]
    stack.wait_complete(sent)
    finished = stack.finished()
    assert [finished[execution_id] for execution_id in sent] == [1] * len(sent)
    for name in ("nats", "nats-3"):
        assert "Violation" not in stack.said(name)


def try_send(stack: ComposeStack, actor_id: str) -> str:
    """The execution a message became; nothing while the log has no leader."""
    answer = stack.http.post(f"/actors/{actor_id}/messages", json={"message": "x"})
    assert answer.status_code in (200, 502, 503, 504), answer.text
    return str(answer.json()["result"]["execution_id"]) if answer.status_code == 200 else ""
