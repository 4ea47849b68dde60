"""CPU time by part of the platform."""

import os
import subprocess
import sys
import time

import pytest

from abaco_bench.load import process_times
from abaco_bench.load.process_times import LAUNCHER, MACHINE

SPIN = "import time\nwhile time.process_time() < 0.2: pass\n"
COUNTED = 0.15
"""The kernel counts in ticks of 10 ms, each for user and system time."""

PARENT = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {SPIN!r}])\n"


def test_the_time_of_an_execution_is_what_was_added() -> None:
    before = {"worker": 1.0, "api": 5.0}
    after = {"worker": 1.5, "api": 2.0, "launcher": 0.25}
    found = process_times.per_execution(before, after, 100)
    assert found == {"worker": pytest.approx(5.0), "api": 0.0, "launcher": pytest.approx(2.5)}


def test_a_process_counts_with_the_children_that_have_ended() -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", f"{PARENT}print(flush=True)\ntime.sleep(60)"], stdout=subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        running.stdout.readline()
        found = process_times.measured({"api": running.pid})
        assert found["api"] >= COUNTED
        assert found[MACHINE] > found["api"]
    finally:
        running.kill()
        running.communicate()


def test_what_is_below_the_worker_is_the_launcher() -> None:
    child = subprocess.Popen([sys.executable, "-c", f"{SPIN}time.sleep(60)"])
    try:
        deadline = time.monotonic() + 60
        while process_times.measured({"worker": os.getpid()}).get(LAUNCHER, 0.0) < COUNTED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()


def test_a_service_that_is_gone_has_no_time() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert "api" not in process_times.measured({"api": gone.pid})
