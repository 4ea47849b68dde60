"""How far a message walks through our code: functions, files, and returns to a file.

    python bench/call_path.py [--list]

One request to ``POST /actors/{id}/messages`` in one process, over the in-memory log, without and
with an ``Idempotency-Key``. Counted are the functions of this repository that the request enters
(a coroutine that is resumed counts once), the files they are in, and how often a call goes to a
file that the request had left before. What the in-memory log does in place of the server, which
includes decoding the event for its readers, is not counted. The count depends on the code alone,
not on the machine.

The last line counts one execution in the worker, in an idle sandbox, from the delivery of its
assignment until that is acknowledged. The launcher is a real one, as a plain process.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx

import abaco_bench  # noqa: F401 - first: it adds tests/support to the path
import builders
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import assemble
from abaco_api.http.application import create_app
from abaco_proto import events as ev
from abaco_worker.app.worker_loop import WorkerLoop
from fakes import InMemoryEventLog, InMemoryOutputLog
from worker_stage import Stage

ROOT = Path(__file__).resolve().parent.parent
OURS = tuple(str(ROOT / folder) for folder in ("proto", "services", "telemetry"))
NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
SERVER = InMemoryEventLog.put_raw.__code__
ACCEPT = WorkerLoop._accept.__code__  # noqa: SLF001 - where a delivery begins
QUIET_SECONDS = 0.5
"""Until the first execution's sandbox is removed and its successor is made."""


class CallPath:
    """The functions that were entered, in order."""

    def __init__(self) -> None:
        self.entered: list[CodeType] = []
        self._frames: set[FrameType] = set()
        self._in_server = False

    def ignore(self, task: "asyncio.Task[Any]") -> None:
        """Do not count a task that ran before the request, although the request wakes it."""
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
            if frame is not None:
                self._frames.add(frame)
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)

    def observe(self, frame: FrameType, event: str, _: object) -> None:
        """A profile function: see ``sys.setprofile``."""
        code = frame.f_code
        if code is SERVER and event in ("call", "return"):
            self._in_server = event == "call"
        if (
            self._in_server
            or event != "call"
            or not code.co_filename.startswith(OURS)
            or frame in self._frames
        ):
            return
        self._frames.add(frame)
        if not code.co_name.startswith("<"):
            self.entered.append(code)

    @property
    def functions(self) -> int:
        """How many different functions were entered."""
        return len(set(self.entered))

    @property
    def files(self) -> list[str]:
        """The files of the functions, each once, in the order of the first call."""
        return list(dict.fromkeys(code.co_filename for code in self.entered))

    @property
    def returns(self) -> int:
        """How often a call went to a file that had been left."""
        seen: set[str] = set()
        last, count = "", 0
        for code in self.entered:
            name = code.co_filename
            count += name != last and name in seen
            seen.add(name)
            last = name
        return count


async def trace(headers: dict[str, str]) -> CallPath:
    """The path of one POST of a message, the second one to its actor."""
    tenants = assemble(
        ApiSettings(postgres_dsn=NO_DATABASE),
        InMemoryEventLog(),
        InMemoryOutputLog(),
    )
    loops = [asyncio.create_task(loop()) for loop in tenants.loops]
    transport = httpx.ASGITransport(app=create_app(tenants))
    path = CallPath()
    for loop in loops:
        path.ignore(loop)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.post("/actors", data={"image": "busybox", "name": "foo"})
        answer.raise_for_status()
        for n in range(2):
            headers = {name: f"{value}-{n}" for name, value in headers.items()}
            with _profiled(path.observe if n else None):
                answer = await client.post(
                    "/actors/foo_0/messages", data={"message": "hi"}, headers=headers
                )
            answer.raise_for_status()
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    tenants.pool.close()
    return path


async def trace_execution() -> CallPath:
    """The path of one execution, the second one of its worker."""
    path = CallPath()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder=Path(folder) / "worker", heartbeat_seconds=60)
        try:
            async with stage.service():
                await stage.register()
                await stage.request()
                await stage.until_seen(ev.WorkerReady)
                await _run(stage, 0)
                await stage.until(lambda: stage.idle_sandboxes() == 1)
                await asyncio.sleep(QUIET_SECONDS)
                for task in asyncio.all_tasks():
                    path.ignore(task)
                stage.queue.settled = _StopsProfiling(stage.queue.settled)
                with _profiled(_after_delivery(path)):
                    await _run(stage, 1)
        finally:
            stage.kill()
    return path


async def _run(stage: Stage, ordinal: int) -> None:
    await stage.append(builders.received(ordinal, message="echo hi"))
    recorded = await stage.assign(ordinal)
    await stage.until(lambda: recorded.sequence in stage.queue.settled)


def _after_delivery(path: CallPath) -> Callable[[FrameType, str, Any], None]:
    """Count from the acceptance of the delivery on."""
    delivered = False

    def observe(frame: FrameType, event: str, argument: object) -> None:
        nonlocal delivered
        delivered = delivered or frame.f_code is ACCEPT
        if delivered:
            path.observe(frame, event, argument)

    return observe


class _StopsProfiling(set[int]):
    """The acknowledged deliveries; the first that is added ends the count."""

    def add(self, sequence: int) -> None:
        sys.setprofile(None)
        super().add(sequence)


class _profiled:  # noqa: N801 - a context manager, named as one reads it
    def __init__(self, observe: Callable[[FrameType, str, Any], None] | None) -> None:
        self._observe = observe

    def __enter__(self) -> None:
        sys.setprofile(self._observe)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def main() -> None:
    """Print the paths."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name every function in its order")
    listed = parser.parse_args().list
    paths = {
        "without a key": trace({}),
        "with a key": trace({"Idempotency-Key": "k"}),
        "an execution": trace_execution(),
    }
    for name, tracing in paths.items():
        path = asyncio.run(tracing)
        print(  # noqa: T201
            f"{name}: {path.functions} functions in {len(path.files)} files, {path.returns} returns"
            f" to a file, {len(path.entered)} calls"
        )
        for code in path.entered if listed else ():
            print(f"  {Path(code.co_filename).relative_to(ROOT)}: {code.co_qualname}")  # noqa: T201


if __name__ == "__main__":
    main()
