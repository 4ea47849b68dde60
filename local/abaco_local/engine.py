"""The container engine: the machine's Docker, installed and started where that is possible.

``python -m abaco_local.engine`` makes sure of it without starting anything else.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import docker
from docker.errors import DockerException

from abaco_local.wait import until
from abaco_proto.errors import AbacoError, Unavailable

Say = Callable[[str], object]

ANSWER_SECONDS = 10
START_SECONDS = 60
SETTLE_SECONDS = 3
LOG = Path("/var/log/dockerd.log")
SYSTEMD = Path("/run/systemd/system")
CGROUPS = Path("/sys/fs/cgroup")
OS_RELEASE = Path("/etc/os-release")
PID_FILES = {
    "dockerd": Path("/var/run/docker.pid"),
    "containerd": Path("/var/run/docker/containerd/containerd.pid"),
}
DEBIANS = {"debian", "ubuntu"}


def answers() -> bool:
    """Tell whether an engine answers, at ``DOCKER_HOST`` or at the usual place.

    Raises:
        Unavailable: if there is one, but not for this account.
    """
    try:
        client = docker.from_env(timeout=ANSWER_SECONDS)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except DockerException as error:
        if "Permission denied" in str(error):
            sentence = (
                "the container engine is not open to this account: is it in the group docker?"
            )
            raise Unavailable(sentence) from None
        return False
    except OSError:  # what docker-py lets through of its own connection's errors
        return False


def info() -> Mapping[str, Any]:
    """What an engine says of itself; empty where none answers."""
    with suppress(DockerException, OSError):
        client = docker.from_env(timeout=ANSWER_SECONDS)
        try:
            found: Mapping[str, Any] = client.info()
            return found
        finally:
            client.close()
    return {}


def ensure(say: Say, environ: Mapping[str, str] = os.environ) -> None:
    """Make sure that an engine answers; install and start it if that is ours to do.

    Raises:
        Unavailable: one sentence that says what to do.
    """
    if answers():
        return
    if environ.get("DOCKER_HOST"):
        raise Unavailable(f"no container engine answers at DOCKER_HOST={environ['DOCKER_HOST']}")
    if os.geteuid() != 0:
        raise Unavailable("no container engine answers: start Docker, or set DOCKER_HOST")
    if not shutil.which("dockerd"):
        _install(say)
        # The package may have started it already.
        if until(answers, SETTLE_SECONDS):
            return
    _start(say)


def remove_waiting(host_id: str, folder: Path) -> int:
    """Remove a host's sandboxes that wait for nothing any more; return how many there were.

    What runs an execution stays: its worker finds it when it is back. One after another, because
    containers that end at the same time can lock an engine up (docs/adr/0008).
    """
    removed = 0
    with suppress(DockerException, OSError):
        client = docker.from_env(
            timeout=ANSWER_SECONDS
        ).api  # an APIClient alone heeds no DOCKER_HOST
        try:
            labels = {"label": [f"abaco.host_id={host_id}"]}
            for found in client.containers(all=True, filters=labels):
                place = folder / (found["Names"] or [""])[0].lstrip("/")
                if place.name and place.is_dir() and not (place / "assignment").exists():
                    client.remove_container(found["Id"], force=True, v=True)
                    shutil.rmtree(place, ignore_errors=True)
                    removed += 1
        finally:
            client.close()
    return removed


def is_debian(os_release: str) -> bool:
    """Tell from the text of ``/etc/os-release`` whether this is Debian, Ubuntu or a child."""
    pairs = (line.partition("=") for line in os_release.splitlines())
    names = {key: value.strip("\"'").split() for key, _, value in pairs}
    return bool(DEBIANS & {*names.get("ID", []), *names.get("ID_LIKE", [])})


def _install(say: Say) -> None:
    known = OS_RELEASE.exists() and is_debian(OS_RELEASE.read_text())
    if not (known and shutil.which("apt-get")):
        raise Unavailable("no container engine is installed: install Docker, or set DOCKER_HOST")
    packages = ["docker.io"]
    # Without an init that mounts the control groups somebody has to.
    if not any(CGROUPS.iterdir()):
        packages.append("cgroupfs-mount")
    say(f"engine: installing {' and '.join(packages)} with apt-get")
    # One broken source of many is no reason to stop: the installation tells whether it matters.
    with suppress(Unavailable):
        _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)


def _start(say: Say) -> None:
    if SYSTEMD.is_dir():
        say("engine: starting docker with systemctl")
        _run("systemctl", "start", "docker")
        up = until(answers, START_SECONDS)
    else:
        up = _start_dockerd(say)
    if not up:
        raise Unavailable(f"the container engine does not start: {_last_line()}")


def _start_dockerd(say: Say) -> bool:
    if not any(CGROUPS.iterdir()) and shutil.which("cgroupfs-mount"):
        _run("cgroupfs-mount")
    for name, path in PID_FILES.items():
        forget_dead(name, path)
    # Not `service docker start`: it wants to raise limits, which not every machine permits.
    say(f"engine: starting dockerd, its log is {LOG}")
    process = _detached("dockerd")
    until(lambda: answers() or process.poll() is not None, START_SECONDS)
    return answers()


def forget_dead(name: str, pid_file: Path, proc: Path = Path("/proc")) -> None:
    """Remove a pid file that names no process of this name.

    An engine that was killed leaves it behind, and one that starts takes whoever has that number
    now, after a restart of the machine say, for its own.
    """
    with suppress(OSError):
        pid = pid_file.read_text().strip()
        if not pid.isdecimal() or not _lives(proc / pid / "stat", name):
            pid_file.unlink()


def _lives(stat: Path, name: str) -> bool:
    """Tell whether a process has this name and has not ended, waited for or not."""
    try:
        _, _, rest = stat.read_text().partition("(")
    except OSError:
        return False
    found, _, state = rest.rpartition(") ")
    return found == name and state[:1] not in ("Z", "X")


def _run(*argv: str) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"{' '.join(argv[:2])} failed: {lines[-1]}")


def _detached(*argv: str) -> subprocess.Popen[bytes]:
    """Start what outlives us, in a session of its own."""
    with LOG.open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def _last_line() -> str:
    lines = LOG.read_text(errors="replace").strip().splitlines() if LOG.exists() else []
    return lines[-1] if lines else f"it did not answer within {START_SECONDS} seconds"


if __name__ == "__main__":
    try:
        ensure(click.echo)
    except AbacoError as failure:
        click.echo(f"abaco: {failure}", err=True)
        sys.exit(1)
