"""The container engine: the Docker of this machine, installed and started if possible.

``python -m abaco_local.servers.container_engine`` does only that.
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

from abaco_local.polling import poll_until
from abaco_proto.errors import AbacoError, Unavailable
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory

Report = Callable[[str], object]

ANSWER_SECONDS = 10
START_SECONDS = 60
SETTLE_SECONDS = 3
DOCKERD_LOG = Path("/var/log/dockerd.log")
SYSTEMD = Path("/run/systemd/system")
CGROUPS = Path("/sys/fs/cgroup")
OS_RELEASE = Path("/etc/os-release")
PID_FILES = {
    "dockerd": Path("/var/run/docker.pid"),
    "containerd": Path("/var/run/docker/containerd/containerd.pid"),
}
DEBIAN_IDS = {"debian", "ubuntu"}


def is_available() -> bool:
    """Return whether an engine answers, at ``DOCKER_HOST`` or the default address.

    Raises:
        Unavailable: it refuses this account.
    """
    try:
        client = docker.from_env(timeout=ANSWER_SECONDS)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except DockerException as error:
        if "Permission denied" in str(error):
            message = "the container engine is not open to this account: is it in the group docker?"
            raise Unavailable(message) from None
        return False
    except OSError:  # docker-py does not translate all errors of its connection
        return False


def read_info() -> Mapping[str, Any]:
    """Return what an engine reports about itself; empty if none answers."""
    with suppress(DockerException, OSError):
        client = docker.from_env(timeout=ANSWER_SECONDS)
        try:
            found: Mapping[str, Any] = client.info()
            return found
        finally:
            client.close()
    return {}


def ensure(report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Make sure that an engine answers; install and start it if this is root on Debian.

    Raises:
        Unavailable: one sentence that says what to do.
    """
    if is_available():
        return
    if environ.get("DOCKER_HOST"):
        raise Unavailable(f"no container engine answers at DOCKER_HOST={environ['DOCKER_HOST']}")
    if os.geteuid() != 0:
        raise Unavailable("no container engine answers: start Docker, or set DOCKER_HOST")
    if not shutil.which("dockerd"):
        _install(report)
        # The package may have started it.
        if poll_until(is_available, SETTLE_SECONDS):
            return
    _start(report)


def remove_idle_containers(host_id: str, folder: Path) -> int:
    """Remove a host's idle sandboxes; return their number.

    Containers that run an execution stay: their worker finds them at its next start. They are
    removed one after another: containers that end at the same time can block an engine
    (docs/adr/0008).
    """
    removed = 0
    with suppress(DockerException, OSError):
        client = docker.from_env(
            timeout=ANSWER_SECONDS
        ).api  # a plain APIClient ignores DOCKER_HOST
        try:
            labels = {"label": [f"abaco.host_id={host_id}"]}
            for found in client.containers(all=True, filters=labels):
                name = (found["Names"] or [""])[0].lstrip("/")
                directory = SandboxDirectory(folder / name)
                if name and directory.path.is_dir() and not directory.runs():
                    client.remove_container(found["Id"], force=True, v=True)
                    shutil.rmtree(directory.path, ignore_errors=True)
                    removed += 1
        finally:
            client.close()
    return removed


def is_debian(os_release: str) -> bool:
    """Return whether the text of ``/etc/os-release`` is of Debian, Ubuntu or a derivative."""
    pairs = (line.partition("=") for line in os_release.splitlines())
    names = {key: value.strip("\"'").split() for key, _, value in pairs}
    return bool(DEBIAN_IDS & {*names.get("ID", []), *names.get("ID_LIKE", [])})


def _install(report: Report) -> None:
    supported = OS_RELEASE.exists() and is_debian(OS_RELEASE.read_text())
    if not (supported and shutil.which("apt-get")):
        raise Unavailable("no container engine is installed: install Docker, or set DOCKER_HOST")
    packages = ["docker.io"]
    # Needed if no init process mounts the control groups.
    if not any(CGROUPS.iterdir()):
        packages.append("cgroupfs-mount")
    report(f"engine: installing {' and '.join(packages)} with apt-get")
    # A broken package source may not matter: the installation decides.
    with suppress(Unavailable):
        _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages)


def _start(report: Report) -> None:
    if SYSTEMD.is_dir():
        report("engine: starting docker with systemctl")
        _run("systemctl", "start", "docker")
        started = poll_until(is_available, START_SECONDS)
    else:
        started = _start_dockerd(report)
    if not started:
        raise Unavailable(f"the container engine does not start: {_last_line()}")


def _start_dockerd(report: Report) -> bool:
    if not any(CGROUPS.iterdir()) and shutil.which("cgroupfs-mount"):
        _run("cgroupfs-mount")
    for name, path in PID_FILES.items():
        remove_stale_pid_file(name, path)
    # Not `service docker start`: it raises limits, which not every machine permits.
    report(f"engine: starting dockerd, its log is {DOCKERD_LOG}")
    process = _start_detached("dockerd")
    poll_until(lambda: is_available() or process.poll() is not None, START_SECONDS)
    return is_available()


def remove_stale_pid_file(name: str, pid_file: Path, proc: Path = Path("/proc")) -> None:
    """Remove a pid file whose process is not running under this name.

    An engine that was killed leaves its pid file. The next one takes any process with that number,
    perhaps another program after a reboot, for itself.
    """
    with suppress(OSError):
        pid = pid_file.read_text().strip()
        if not pid.isdecimal() or not _is_running(proc / pid / "stat", name):
            pid_file.unlink()


def _is_running(stat: Path, name: str) -> bool:
    """Return whether a process has this name and has not exited."""
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


def _start_detached(*argv: str) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, in its own session."""
    with DOCKERD_LOG.open("ab") as log:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def _last_line() -> str:
    lines = (
        DOCKERD_LOG.read_text(errors="replace").strip().splitlines() if DOCKERD_LOG.exists() else []
    )
    return lines[-1] if lines else f"it did not answer within {START_SECONDS} seconds"


if __name__ == "__main__":
    try:
        ensure(click.echo)
    except AbacoError as failure:
        click.echo(f"abaco: {failure}", err=True)
        sys.exit(1)
