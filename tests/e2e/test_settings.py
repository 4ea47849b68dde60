"""A bad or misspelt setting ends every process with one line that names it."""

import os
import subprocess
import sys

import pytest

MODULES = ["abaco_api", "abaco_scheduler", "abaco_worker", "abaco_projector", "abaco_local"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("name", "value"), [("ABACO_NATS_ULR", "x"), ("ABACO_LOG_LEVEL", "loud")])
def test_one_line_that_names_it(module: str, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *(["up"] if module == "abaco_local" else [])],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert name in line
