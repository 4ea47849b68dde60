"""An actor with a state runs its messages one after another, in order, whatever is killed."""

import itertools
import os
from datetime import datetime

from abaco_proto import events as ev
from stack import Stack, eventually

MESSAGES = int(os.environ.get("ABACO_TEST_MESSAGES", "20"))
"""So many in ``make test``; a hundred in ``make faults``."""


def test_in_order_across_a_kill_of_the_worker(stack: Stack) -> None:
    actor_id = stack.register("orderly", "abaco-test/quick", stateless=False)
    stack.wait_ready(actor_id)
    sent = [stack.send(actor_id, f"{n}") for n in range(MESSAGES)]
    eventually(lambda: stack.finished()[sent[9]], what="the first ten ran")
    before = stack.pid("worker")
    stack.kill("worker")
    eventually(lambda: stack.pid("worker") not in (None, before), what="another worker")
    stack.wait_complete(sent, seconds=240)
    events = [r.event for r in stack.events() if getattr(r.event, "actor_id", "") == actor_id]
    finished = [e for e in events if isinstance(e, ev.ExecutionFinished)]
    assert [e.execution_id for e in finished] == sent
    for one, next_one in itertools.pairwise(finished):
        ended = datetime.fromisoformat(one.final_state.finished_at)
        assert ended <= datetime.fromisoformat(next_one.final_state.started_at)
