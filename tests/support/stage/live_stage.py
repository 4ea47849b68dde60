"""Read models and a connection by hand, for the tests of followed output."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Message

from abaco_proto.errors import Unavailable
from abaco_proto.output import Output
from rows import EXECUTION

Row = dict[str, Any]


def row(status: str = "RUNNING", **changes: Any) -> Row:
    ended = status == "COMPLETE"
    values = {**EXECUTION, "status": status, "log_bytes": 0, **changes}
    return {**values, "final_state": values["final_state"] if ended else None}


def chunk(data: bytes, offset: int = 0, attempt: int = 1) -> Output:
    return Output(
        tenant="default",
        actor_id="foo_0",
        execution_id="foo_0_exc_0",
        attempt=attempt,
        offset=offset,
        data=data,
    )


class Models:
    """Read models: rows as a test has them. ``available = False`` is the plug pulled."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Row] = {}
        self.stored: list[Output] = []
        self.available = True
        self.asked = 0
        self.filled = 0

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("away")

    async def ended(self, keys: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], Row]:
        self.asked += 1
        self._check()
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def output_from(
        self, execution_id: str, attempt: int, offset: int, limit: int
    ) -> list[Row]:
        self._check()
        self.filled += 1
        assert self.filled < 10_000, "asked without end"
        found = [
            {"output_offset": o.offset, "data": o.data}
            for o in self.stored
            if o.attempt == attempt and o.offset + len(o.data) > offset
        ]
        return found[:limit]


class Connection:
    """What a server gives an application."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent)
