"""``runc run`` of a ready bundle: what the kernel and the lowest layer cost, without an engine."""

import json
import os
import shutil
import subprocess
import time
from itertools import count
from pathlib import Path

from abaco_bench.baselines.raw_docker import exported
from images import QUICK

RUN_SECONDS = 30


class RuncBundle:
    """The test image's files, exported once, with a configuration of runc's own making."""

    def __init__(self, folder: Path) -> None:
        """Make the bundle in ``folder``. No network is set up: its namespace is empty."""
        self._folder = folder
        self._numbers = count()
        files, image = exported(QUICK)
        (folder / "rootfs").mkdir()
        unpack = ["tar", "-x", "-C", str(folder / "rootfs")]
        subprocess.run(unpack, input=files, check=True, timeout=RUN_SECONDS)
        subprocess.run(["runc", "spec"], cwd=folder, check=True, timeout=RUN_SECONDS)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = [*(image["Entrypoint"] or []), *(image["Cmd"] or [])]
        config["process"]["env"] = [*(image["Env"] or []), "MSG=x"]
        path.write_text(json.dumps(config))

    def run(self) -> dict[str, float]:
        """Ms to the first byte of output, and to the end."""
        name = f"abaco-bench-{os.getpid()}-{next(self._numbers)}"
        argv = ["runc", "--root", str(self._folder / "state"), "run", name]
        begun = time.perf_counter()
        with subprocess.Popen(argv, cwd=self._folder, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(1), "runc run printed nothing"
            first = time.perf_counter()
            process.stdout.read()
            code = process.wait(RUN_SECONDS)
        assert code == 0, code
        ended = time.perf_counter()
        return {"first output": (first - begun) * 1e3, "finished": (ended - begun) * 1e3}


def available() -> str:
    """Empty, or why runc cannot be measured here."""
    if shutil.which("runc") is None:
        return "there is no runc"
    return "" if os.geteuid() == 0 else "runc needs root here"
