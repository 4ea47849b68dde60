"""Many executions in flight on many workers, and what must be true of them after a fault."""

import random

from containers import left_of
from stack import Stack, eventually

MANY = 40


class Fleet:
    """An actor with as many workers as messages: all of them run at the same time."""

    def __init__(self, stack: Stack, name: str, count: int = MANY) -> None:
        """The workers are ready, each with an idle sandbox."""
        self.stack = stack
        self.count = count
        self.actor_id = stack.register(
            name, "abaco-test/numbers", min_workers=count, max_workers=count
        )
        self.sent: list[str] = []
        eventually(lambda: len(self._ready()) == count, seconds=120, what=f"{count} workers")

    def _ready(self) -> list[str]:
        workers = self.stack.try_list(f"/actors/{self.actor_id}/workers")
        return [w["id"] for w in workers if w["status"] == "READY"]

    def launch(self, chance: random.Random, seconds: float) -> None:
        """One message per worker: a number each tenth of a second, for at most ``seconds``."""
        for _ in range(self.count):
            lines = chance.randint(1, int(seconds * 10))
            self.sent.append(self.stack.send(self.actor_id, str(lines)))

    def check(self) -> None:
        """Each ended once, its output is whole, and no container is left once the actor is gone."""
        stack = self.stack
        stack.wait_complete(self.sent, seconds=240)
        finished = stack.finished()
        assert [finished[execution_id] for execution_id in self.sent] == [1] * len(self.sent)
        messages = stack.messages(self.actor_id)
        for execution_id in self.sent:
            lines = int(messages[execution_id])
            whole = "".join(f"{n}\n" for n in range(1, lines + 1))
            assert stack.logs(execution_id) == whole, execution_id
        stack.call("DELETE", f"/actors/{self.actor_id}")
        host_id = stack.host_id()
        left: list[str] = []

        def none_left() -> bool:
            left[:] = [f"{c['Names']} {c['Status']}" for c in left_of(self.actor_id, host_id)]
            return not left

        try:
            eventually(none_left, seconds=240, what="no container is left")
        except AssertionError as error:
            raise AssertionError(f"{error}: {left}") from None
