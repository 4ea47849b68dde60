"""The kernel's own part of a sandbox: a C loop of the launcher's steps, without the platform."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from abaco_worker.launcher import build
from sandbox_stage import IMAGE, Slot, build_image, compile_with_launcher

SOURCE = Path(__file__).parents[2] / "sandbox_floor.c"
MIN_COUNT = 20


class FloorRun(NamedTuple):
    """Sandboxes a second, the CPU time of each in seconds, and the seconds of every one."""

    rate: float
    cpu_seconds: float
    each_seconds: list[float]


class KernelFloor:
    """The loop. It needs root, as the launcher does."""

    def __init__(self, folder: Path) -> None:
        """Compile it in ``folder``, and build the image."""
        build_image()
        self._folder = folder
        self._program = compile_with_launcher(SOURCE, folder / "floor")

    def run(self, level: int, count: int) -> FloorRun:
        """Run ``level`` loops side by side, ``count`` sandboxes each, in a container each."""
        count = max(count, MIN_COUNT)
        with ExitStack() as stack:
            containers = [
                stack.enter_context(_waiting(self._folder / f"{time.monotonic_ns()}"))
                for _ in range(level)
            ]
            loops = [
                subprocess.Popen(
                    [
                        *(self._program, str(made.pause), made.id),
                        *(str(made.folder / "layers"), str(count)),
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for made in containers
            ]
            found = [loop.communicate()[0].splitlines() for loop in loops]
            assert not any(loop.returncode for loop in loops)
        each = [[int(line) / 1e9 for line in lines[:-1]] for lines in found]
        cpu = sum(int(lines[-1].split()[1]) for lines in found) / 1e9
        rate = sum(len(times) / sum(times) for times in each)
        return FloorRun(rate, cpu / sum(map(len, each)), [t for times in each for t in times])


@contextmanager
def _waiting(folder: Path) -> Iterator[Slot]:
    """A container whose process 1 pauses, without a launcher."""
    program = build.build()
    assert program is not None
    made = Slot(folder, program, IMAGE, {})
    try:
        made.start_container()
        yield made
    finally:
        made.remove()
