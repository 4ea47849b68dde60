"""Clocks on the wall that a test can set, one for each service of a stack (``clock.c``)."""

import json
import struct
import subprocess
from pathlib import Path

import pytest

from stack import Stack

SOURCE = Path(__file__).with_name("clock.c")
STEP = struct.Struct("=q")


class Clocks:
    """The clocks of a stack's services; right at first."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        """The stack is up: its services get the clocks at their next start."""
        self._folder = folder
        library = folder / "clock.so"
        compile_ = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        try:
            subprocess.run(compile_, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no C compiler, so that no clock can be set")
        commands = stack.folder / "run" / "commands.json"
        known = json.loads(commands.read_text())
        for name in ("api", "projector", "scheduler", "worker"):
            self.set(name, 0)
            env = {"LD_PRELOAD": str(library), "TEST_CLOCK": str(self._file(name))}
            known[name]["env"].update(env)
        commands.write_text(json.dumps(known))

    def set(self, name: str, seconds: int) -> None:
        """Set a service's clock so many seconds before the right time, or behind it."""
        with self._file(name).open("r+b" if self._file(name).exists() else "wb") as file:
            file.write(STEP.pack(seconds))

    def _file(self, name: str) -> Path:
        return self._folder / name
