"""A data folder of an earlier version: it is verified, served, and continued.

``tests/fixtures/make_old_data_folder.py`` made it.
"""

import os
import pwd
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_server import EngineServer
from servers import scratch_folder
from stack import Stack, eventually

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "old_data_folder.tar.xz"
PLAIN, STATEFUL, LISTENER, SLOW = "plain_0", "stateful_0", "listener_0", "slow_0"
SENT = [*(f"message {n}" for n in range(4)), "once", "heard"]
WAITING = f"{PLAIN}_exc_{len(SENT)}"


@pytest.fixture
def stack(engine: EngineServer) -> Iterator[Stack]:
    with scratch_folder() as folder:
        unpack(folder / "data")
        stack = Stack(folder / "data")
        try:
            yield stack
            assert stack.refused() == []
        finally:
            stack.http.close()
            stack.down()


def unpack(data: Path) -> None:
    """Unpack the archive; its Postgres runs as the account that Postgres always runs as."""
    data.mkdir(mode=0o711)
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(data, filter="tar")
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody")
        for path in (data / "pgdata", *(data / "pgdata").rglob("*")):
            shutil.chown(path, owner.pw_uid, owner.pw_gid)


def output_of(stack: Stack, *words: str) -> str:
    done = stack.abaco(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def execution(stack: Stack, execution_id: str) -> dict[str, Any]:
    actor_id = execution_id.rpartition("_exc_")[0]
    return stack.call("GET", f"/actors/{actor_id}/executions/{execution_id}")


def test_the_data_folder_of_an_earlier_version_is_continued(stack: Stack) -> None:
    output_of(stack, "up", "--servers")
    refused = stack.abaco("verify")
    assert refused.returncode == 1
    assert "start the projector, which migrates them" in refused.stderr
    stack.up()
    verified = output_of(stack, "verify")
    assert verified.startswith("clean: ")
    old_events = int(verified.split()[1])
    head = verified.splitlines()[0].rpartition("head ")[2]

    # What was written is served.
    for n, message in enumerate(SENT):
        assert execution(stack, f"{PLAIN}_exc_{n}")["status"] == "COMPLETE"
        assert stack.logs(f"{PLAIN}_exc_{n}") == f"got {message}\n"
    assert stack.call("GET", f"/actors/{STATEFUL}/state")["state"] == {"count": 1}
    assert stack.status_of(f"{STATEFUL}_exc_0") == "COMPLETE"
    assert "plain_0_exc_5" in stack.logs(f"{LISTENER}_exc_0")
    [subscription] = stack.try_list(f"/actors/{LISTENER}/subscriptions")
    assert subscription["event_pattern"] == f"{PLAIN}.execution.finished"
    assert stack.http.get(f"/actors/{SLOW}").status_code == 404

    # The message that no worker had, and new ones, are executed.
    new = [
        stack.send(PLAIN, "new"),
        stack.send(STATEFUL, "new, with state"),
    ]
    stack.wait_complete([WAITING, *new])
    eventually(
        lambda: stack.logs(WAITING) == "got left waiting\n" and stack.logs(new[0]) == "got new\n",
        what="the output is stored",
    )
    # The listener hears of the executions that finish now, once of each.
    heard = [f"{LISTENER}_exc_{n}" for n in (1, 2)]
    stack.wait_complete(heard)
    assert f"{LISTENER}_exc_3" not in stack.messages(LISTENER)
    other = stack.register("fresh", "abaco-test/quick")
    assert other == "fresh_0"
    stack.wait_complete([stack.send(other, "hello")])

    verified = output_of(stack, "verify", "--noted", head)
    assert verified.startswith("clean: ")
    assert int(verified.split()[1]) > old_events
