"""A bad or misspelt setting ends every process with one line that names it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from servers import LOOPBACK, free_port

MODULES = ["abaco_api", "abaco_scheduler", "abaco_worker", "abaco_projector", "abaco_local"]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("name", "value"), [("ABACO_NATS_ULR", "x"), ("ABACO_LOG_LEVEL", "loud")])
def test_one_line_that_names_it(module: str, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *(["up"] if module == "abaco_local" else [])],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert name in line


NOWHERE = {
    "ABACO_NATS_URL": "nats://127.0.0.1:1",
    "ABACO_POSTGRES_DSN": "postgresql://abaco:secret@127.0.0.1:1/abaco",
    "ABACO_LAUNCHER": "off",
}


@pytest.mark.parametrize("module", ["abaco_scheduler", "abaco_worker", "abaco_projector"])
def test_a_port_for_metrics_that_is_taken(module: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", module],
            env={**os.environ, **NOWHERE, "ABACO_METRICS_PORT": port, "ABACO_LOG_LEVEL": "error"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"ABACO_METRICS_PORT: cannot listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize("module", MODULES[:4])
def test_lines_for_programs(module: str) -> None:
    settings = {"ABACO_LOG_FORMAT": "json", "ABACO_API_PORT": str(free_port())}
    with subprocess.Popen(
        [sys.executable, "-m", module],
        env={**os.environ, **NOWHERE, **settings},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            line = json.loads(process.stderr.readline())
        finally:
            process.terminate()
    assert line["service"] == module.removeprefix("abaco_")
    assert {"time", "level", "logger", "message"} <= line.keys()
