"""Many executions in flight on many workers, and what must be true of them after a fault."""

import random

from containers import left_of
from stack import Stack, eventually

MANY = 40
ISOLATIONS = ("sandbox", "container")


class Fleet:
    """An actor of each isolation, with as many workers as messages: all run at the same time."""

    def __init__(self, stack: Stack, name: str, count: int = MANY) -> None:
        """The workers are ready. ``count`` is that of both actors together, and even."""
        self.stack = stack
        self.each = count // len(ISOLATIONS)
        self.actor_ids = [
            stack.register(
                f"{name}-{isolation}",
                "abaco-test/numbers",
                min_workers=self.each,
                max_workers=self.each,
                isolation=isolation,
            )
            for isolation in ISOLATIONS
        ]
        self.sent: list[str] = []
        eventually(lambda: self._ready() == count, seconds=120, what=f"{count} workers")

    def _ready(self) -> int:
        paths = [f"/actors/{actor_id}/workers" for actor_id in self.actor_ids]
        workers = [worker for path in paths for worker in self.stack.try_list(path)]
        return sum(worker["status"] == "READY" for worker in workers)

    def launch(self, chance: random.Random, seconds: float) -> None:
        """One message per worker: a number each tenth of a second, for at most ``seconds``."""
        for actor_id in self.actor_ids * self.each:
            lines = chance.randint(1, int(seconds * 10))
            self.sent.append(self.stack.send(actor_id, str(lines)))

    def check(self) -> None:
        """Each ended once, its output is whole, and no container is left once the actor is gone."""
        stack = self.stack
        stack.wait_complete(self.sent, seconds=240)
        finished = stack.finished()
        assert [finished[execution_id] for execution_id in self.sent] == [1] * len(self.sent)
        messages: dict[str, str] = {}
        for actor_id in self.actor_ids:
            messages |= stack.messages(actor_id)
        for execution_id in self.sent:
            lines = int(messages[execution_id])
            whole = "".join(f"{n}\n" for n in range(1, lines + 1))
            assert stack.logs(execution_id) == whole, execution_id
        for actor_id in self.actor_ids:
            stack.call("DELETE", f"/actors/{actor_id}")
        host_id = stack.host_id()
        left: list[str] = []

        def none_left() -> bool:
            found = [c for actor_id in self.actor_ids for c in left_of(actor_id, host_id)]
            left[:] = [f"{c['Names']} {c['Status']}" for c in found]
            return not left

        try:
            eventually(none_left, seconds=240, what="no container is left")
        except AssertionError as error:
            raise AssertionError(f"{error}: {left}") from None
