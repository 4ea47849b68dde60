"""The launcher beside real containers, whose images have nearly no files."""

import asyncio
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError

import images
from abaco_worker.domain.engine_values import LAUNCHER_PATH
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.engine.docker_engine import DockerEngine
from abaco_worker.engine.docker_helper import LABEL, ContainerChannel
from abaco_worker.sandbox.launcher_client import request_exit
from abaco_worker.sandbox.sandbox_directory import ProcessIdentity, SandboxDirectory
from deadlines import LIMIT_SECONDS
from launcher_stage import (
    Ended,
    connected,
    ended,
    new_directory,
    process_of,
    program,
    request,
    shell,
)

SHELL = "abaco-test/launcher-shell"
SCRATCH = "abaco-test/launcher-scratch"
MEBIBYTE = 1024 * 1024

PASSWD = """\
root:x:0:0:root:/root:/bin/sh

# a comment
odd:x:many:1000::/nowhere:
anna:x:1000:1000:Anna:/home/anna:/bin/sh
berta:x:1001:100::/home/berta
1234:x:77:77:a name of digits:/:
homeless:x:1002:1002
"""
GROUP = """\
root:x:0:
users:x:100:berta
anna:x:1000:
disk:x:6:root,anna
audio:x:29:berta,anna
cut:x:7
"""


# -- the images


@pytest.fixture(scope="module")
def shell_image() -> str:
    recipe = images.WITH_SHELL + (
        "COPY passwd group /etc/\n"
        'RUN ["/bin/sh", "-c", "mkdir -m 1777 /tmp; mkdir -m 700 /secret"]\n'
        "ENV FROM_IMAGE=yes\n"
        "USER anna\n"
        "WORKDIR /made/by/docker\n"
        "HEALTHCHECK CMD touch /tmp/checked\n"
    )
    files = {"passwd": PASSWD.encode(), "group": GROUP.encode()}
    images.build(SHELL, recipe, files)
    return SHELL


@pytest.fixture(scope="module")
def scratch_image() -> str:
    """One static binary and nothing else, not even a folder for the mounts."""
    images.build(SCRATCH, "FROM scratch\nCOPY true /true\n", {"true": images.busybox()})
    return SCRATCH


# -- the containers


class Yard:
    """Containers with a launcher, removed at the end of the test."""

    def __init__(self, folder: Path, image: str) -> None:
        self._api = docker.APIClient(version="auto")
        self._folder = folder
        self._image = image
        self.ids: list[str] = []
        self._helper = subprocess.Popen(
            [program(), "helper", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def waiting(self, image: str = "", **limits: Any) -> SandboxDirectory:
        """Start a container and its launcher."""
        directory = new_directory(self._folder / str(len(self.ids)))
        made = self._api.create_container(
            image or self._image,
            entrypoint=[LAUNCHER_PATH, "pause"],
            user="0:0",
            healthcheck={"Test": ["NONE"]},
            host_config={
                "NetworkMode": "none",
                "Memory": 64 * MEBIBYTE,
                "MemorySwap": 64 * MEBIBYTE,
                "PidsLimit": 64,
                "NanoCpus": 1_000_000_000,
                "SecurityOpt": ["no-new-privileges"],
                "Init": False,
                **limits,
                "Binds": [f"{program()}:{LAUNCHER_PATH}:ro", *limits.get("Binds", [])],
            },
        )
        self.ids.append(made["Id"])
        self._api.start(made["Id"])
        pid = self._api.inspect_container(made["Id"])["State"]["Pid"]
        directory.write_launcher(self._launcher(made["Id"], pid, directory.name))
        return directory

    def _launcher(self, container_id: str, pid: int, name: str) -> ProcessIdentity:
        answer = self.ask(f"start {pid} {container_id} {name}\n").split()
        assert answer[0] == "started", answer
        launcher = ProcessIdentity(pid=int(answer[1]), started=int(answer[2]))
        assert launcher == process_of(launcher.pid)
        return launcher

    def ask(self, line: str) -> str:
        """Return the helper's answer."""
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(line)
        self._helper.stdin.flush()
        return self._helper.stdout.readline()

    async def run(self, wanted: RunRequest, image: str = "", **limits: Any) -> Ended:
        directory = await asyncio.to_thread(self.waiting, image, **limits)
        return await ended(directory, wanted)

    async def said(self, wanted: RunRequest, **limits: Any) -> str:
        return (await self.run(wanted, **limits)).output.decode().strip()

    def state(self, index: int = -1) -> Mapping[str, Any]:
        self._api.wait(self.ids[index], timeout=20)
        state: Mapping[str, Any] = self.look(index)["State"]
        return state

    def look(self, index: int = -1) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._api.inspect_container(self.ids[index])
        return found

    def processes(self, index: int = -1) -> list[Any]:
        return list(self._api.top(self.ids[index])["Processes"])

    def kill_program(self, command: str) -> None:
        """Kill from the host, as the kernel does when memory runs out."""
        (pid,) = (int(process[1]) for process in self.processes() if process[-1] == command)
        os.kill(pid, signal.SIGKILL)

    def call(self, function: Callable[[Any, str], Any]) -> Any:
        return function(self._api, self.ids[-1])

    def clear(self) -> None:
        for container_id in self.ids:
            with suppress(APIError):
                self._api.remove_container(container_id, force=True, v=True)
        self._api.close()
        self._helper.communicate(timeout=LIMIT_SECONDS)  # it exits after the last of its launchers


@pytest.fixture
def yard(tmp_path: Path, shell_image: str) -> Iterator[Yard]:
    yard = Yard(tmp_path, shell_image)
    try:
        yield yard
    finally:
        yard.clear()


# -- images


async def test_a_scratch_image_with_one_binary_runs(yard: Yard, scratch_image: str) -> None:
    run = await yard.run(request("/true", user="4242:43"), scratch_image)
    assert (run.report.shell_exit_code, run.report.error) == (0, "")


async def test_what_a_scratch_image_lacks_is_said(yard: Yard, scratch_image: str) -> None:
    named = await yard.run(request("/true", user="anna"), scratch_image)
    assert named.report.shell_exit_code == 126
    assert named.report.error == "unable to find user anna in /etc/passwd of the image"
    group = await yard.run(request("/true", user="0:staff"), scratch_image)
    assert group.report.error == "unable to find group staff in /etc/group of the image"
    missing = await yard.run(request("sh"), scratch_image)
    assert missing.report.shell_exit_code == 127


async def test_the_container_stays_until_it_is_told_to_go(yard: Yard) -> None:
    """The worker removes one at a time: two exits at once can block Docker 20.10 for good."""
    directories = [yard.waiting() for _ in range(2)]
    assert (await ended(directories[0], shell("exit 42"))).report.exit_code == 42
    killing = asyncio.create_task(ended(directories[1], shell("echo on; exec sleep 60")))
    await until_written(directories[1])
    await asyncio.to_thread(yard.kill_program, "sleep 60")
    assert (await killing).report.signal == 9
    assert [yard.look(n)["State"]["Status"] for n in (0, 1)] == ["running", "running"]
    assert [await request_exit(directory) for directory in directories] == [True, True]
    assert [yard.state(n)["ExitCode"] for n in (0, 1)] == [42, 137]


async def test_a_container_does_not_go_while_its_program_runs(yard: Yard) -> None:
    directory = yard.waiting()
    async with connected(directory) as launcher:
        await launcher.launch(shell("read line < /dev/null; while [ ! -e /go ]; do :; done"))
        assert not await request_exit(directory)
        await launcher.halt()
        assert (await launcher.wait_for_report()).halted
    assert await request_exit(directory)
    assert yard.state()["Status"] == "exited"
    assert not await request_exit(directory)


async def until_written(directory: SandboxDirectory) -> None:
    while not (directory.output.exists() and directory.output.read_bytes()):
        await asyncio.sleep(0.01)


# -- users


WHO = (
    "awk '/^[UG]id/ {print $2} /^Groups/ {$1=\"\"; print}' /proc/self/status; "
    "echo $HOME; echo said >/dev/stdout; echo $?"
)


@pytest.mark.parametrize(
    ("user", "ids", "groups", "home"),
    [
        ("", (0, 0), {0, 6}, "/root"),
        ("root", (0, 0), {0, 6}, "/root"),
        ("0", (0, 0), {0, 6}, "/root"),
        ("anna", (1000, 1000), {1000, 6, 29}, "/home/anna"),
        ("1000", (1000, 1000), {1000, 6, 29}, "/home/anna"),
        ("anna:users", (1000, 100), {100}, "/home/anna"),
        ("anna:100", (1000, 100), {100}, "/home/anna"),
        ("1000:4711", (1000, 4711), {4711}, "/home/anna"),
        ("berta", (1001, 100), {100, 29}, "/home/berta"),
        ("4242", (4242, 0), {0}, "/"),
        ("4242:29", (4242, 29), {29}, "/"),
        ("1234", (1234, 0), {0}, "/"),  # a number is never a name
        ("homeless", (1002, 1002), {1002}, ""),
        (":users", (0, 100), {100}, "/root"),
    ],
)
async def test_a_user_is_who_docker_says(
    yard: Yard, user: str, ids: tuple[int, int], groups: set[int], home: str
) -> None:
    ours = (await yard.said(shell(WHO, user=user))).splitlines()
    assert ((int(ours[0]), int(ours[1])), ours[3]) == (ids, home)
    assert {int(group) for group in ours[2].split()} == groups
    assert ours[4:] == ["said", "0"]
    theirs = docker_run(user, WHO).splitlines()
    assert [set(line.split()) for line in ours] == [set(line.split()) for line in theirs]


def docker_run(user: str, script: str, **more: Any) -> str:
    """Run the same by the engine alone, as ``docker run --rm`` does."""
    client = docker.from_env()
    try:
        said: bytes = client.containers.run(
            SHELL,
            ["/bin/sh", "-c", script],
            user=user or "0",
            network_mode="none",
            remove=True,
            **more,
        )
    finally:
        client.close()
    return said.decode()


@pytest.mark.parametrize("user", ["nobody-knows", "odd", "4294967296", "-1", "anna:nobody-knows"])
async def test_a_user_that_is_not_there_is_said_so(yard: Yard, user: str) -> None:
    report = (await yard.run(shell("true", user=user))).report
    assert report.shell_exit_code == 126
    assert "unable to find" in report.error


async def test_a_user_has_no_capability_and_root_those_of_the_container(yard: Yard) -> None:
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
    ours = [await yard.said(shell(script, user=user)) for user in ("", "anna")]
    theirs = [docker_run(user, script).strip() for user in ("", "anna")]
    assert ours == [said.replace("NoNewPrivs:\t0", "NoNewPrivs:\t1") for said in theirs]


@pytest.mark.parametrize("user", ["", "anna"])
async def test_the_confinement_is_that_of_the_container(yard: Yard, user: str) -> None:
    """This also holds if the engine does not confine as it does by default."""
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; grep -c . /proc/mounts"
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"SecurityOpt": []}, {}),
        ({"SecurityOpt": ["seccomp=unconfined"]}, {"security_opt": ["seccomp=unconfined"]}),
        ({"SecurityOpt": [], "CapAdd": ["SYS_NICE"]}, {"cap_add": ["SYS_NICE"]}),
    ]
    for ours, docker_s in ways:
        assert await yard.said(shell(script, user=user), **ours) == (
            docker_run(user, script, **docker_s).strip()
        )


async def test_a_container_without_capabilities_is_as_with_docker(yard: Yard) -> None:
    limits: dict[str, Any] = {"CapDrop": ["ALL"]}
    script = "id -u; id -G; grep ^Cap /proc/self/status"
    for user in ("", "anna"):
        ours = await yard.said(shell(script, user=user), **limits)
        assert ours == docker_run(user, script, cap_drop=["ALL"]).strip()


# -- directory and environment


async def test_the_directory_is_the_users(yard: Yard) -> None:
    assert await yard.said(shell("pwd", directory="/made/by/docker")) == "/made/by/docker"
    run = await yard.run(shell("pwd", directory="/secret", user="anna"))
    assert run.output == b"/secret\n"  # root enters it, as with Docker
    missing = (await yard.run(shell("pwd", directory="/nowhere"))).report
    assert missing.error == "cannot enter the working directory /nowhere: No such file or directory"


async def test_the_environment_is_the_requests_and_the_hostname_the_containers(yard: Yard) -> None:
    lines = await yard.said(request("env", environment={"A": "1"}))
    found = dict(line.split("=", 1) for line in lines.splitlines())
    assert set(found) == {"A", "PATH", "HOSTNAME", "HOME"}
    assert yard.ids[-1].startswith(found["HOSTNAME"])


# -- isolation


async def test_the_waiting_container_knows_nothing(yard: Yard) -> None:
    directory = yard.waiting()
    assert {entry.name for entry in directory.path.iterdir()} == {"run", "launcher"}
    first, launcher = yard.processes()
    assert (first[-1], launcher[-1]) == (
        f"{LAUNCHER_PATH} pause",
        f"{program()} helper {directory.path.parent}",
    )
    environment = Path(f"/proc/{first[1]}/environ").read_text()
    names = {line.split("=")[0] for line in environment.rstrip("\0").split("\0")}
    assert names == {"PATH", "HOSTNAME", "FROM_IMAGE", "HOME"}


FINDS = (
    "trap '' TERM INT HUP; exec 2>/dev/null; for n in TERM INT HUP; do kill -$n -1; done; "
    "cat /proc/[0-9]*/comm; for n in $(seq 2 200); do kill -9 $n; done; echo --; "
    "find / -xdev \\( -name '*abaco*' -o -name '*launcher*' -o -type s \\); "
    "grep -e abaco -e launcher /proc/self/mountinfo /proc/net/unix; echo --; "
    "readlink /proc/1/exe; echo still here"
)


async def test_root_finds_nothing_of_the_launcher(yard: Yard) -> None:
    """Neither its process nor its program, socket or files."""
    run = await yard.run(shell(FINDS))
    processes, found, end = (part.split() for part in run.output.decode().split("--\n"))
    assert processes == ["sh"]
    assert found == []
    assert end == ["/bin/busybox", "still", "here"]
    assert (run.report.exit_code, run.report.halted) == (0, False)


@pytest.mark.parametrize("number", range(5))
async def test_a_descriptor_is_no_way_out(yard: Yard, number: int) -> None:
    """CVE-2024-21626: a directory that was open in the launcher led to the host."""
    report = (await yard.run(shell("pwd; ls /", directory=f"/proc/self/fd/{number}"))).report
    assert report.shell_exit_code == 126


async def test_a_read_only_container_has_its_launcher_too(yard: Yard) -> None:
    run = await yard.run(shell("echo x >/x; echo y"), ReadonlyRootfs=True)
    assert run.output.endswith(b"y\n")
    assert b"Read-only" in run.output


# -- the helper


class ByContainer(Yard):
    """The launchers' helper is a container."""

    channel: ContainerChannel

    def ask(self, line: str) -> str:
        return asyncio.run(self.channel.ask(line))


async def test_the_engine_runs_the_helper_where_the_worker_may_not(
    tmp_path: Path, shell_image: str
) -> None:
    engine = DockerEngine(os.environ, capacity=1)
    yard = ByContainer(tmp_path, shell_image)
    host_id = f"t-{uuid.uuid4().hex[:8]}"
    try:
        yard.channel = await engine.helper(host_id, program(), tmp_path)
        assert await yard.channel.ask("check\n") == "ok\n"
        directory = await asyncio.to_thread(yard.waiting)
        yard.channel.close()  # the worker has ended, and its launchers continue
        wanted = shell(f"echo $$; {FINDS}; grep ^Cap /proc/1/status", user="anna")
        run = await ended(directory, wanted)
        assert run.report.exit_code == 0
        assert run.output.startswith(b"1\nsh\n--\n--\n/bin/busybox\nstill here\n")
        assert run.report.cpu_ns > 0
        assert run.report.group_memory_bytes > 0
        assert len(await engine.labelled(LABEL, host_id)) == 1
    finally:
        await asyncio.to_thread(yard.clear)
    async with asyncio.timeout(60):
        while await engine.labelled(LABEL, host_id):  # it is removed after the last of them
            await asyncio.sleep(0.05)
    engine.close()


async def test_a_process_1_that_does_not_pause_gets_no_launcher(yard: Yard) -> None:
    """It can still be the engine's own program, which has more rights than the container."""
    with closing(docker.from_env()) as client:
        other = client.containers.run(SHELL, ["/bin/sleep", "60"], detach=True, network_mode="none")
        try:
            other.reload()
            answer = yard.ask(f"start {other.attrs['State']['Pid']} {other.id} x\n")
        finally:
            other.remove(force=True)
    assert answer == "error its process 1 did not begin in time\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("start 1 0123456789abcdef x\n", "malformed command"),
        ("start 4194303 0123456789abcdef x\n", "cannot see its process 1"),
        ("start {me} 0123456789abcdef x\n", "is not of container 0123456789ab"),
        ("start 2 0123456789abcdef ../x\n", "malformed command"),
        ("start 2 0123456789abcdef .x\n", "malformed command"),
        ("stop\n", "malformed command"),
    ],
)
async def test_what_is_no_container_gets_no_launcher(yard: Yard, line: str, words: str) -> None:
    answer = yard.ask(line.format(me=os.getpid()))
    assert answer.startswith("error ")
    assert words in answer
    assert await yard.said(shell("echo on")) == "on"


# -- processes


async def test_it_is_an_init(yard: Yard) -> None:
    script = (
        "for i in 1 2 3 4 5; do (sh -c 'sleep 0.1; exit 3' &); done; sleep 0.5; "
        "ps -o pid,stat,comm; echo $$"
    )
    said = await yard.said(shell(script))
    assert "Z" not in said.replace("SZ", "")
    assert "1 S" in said


async def test_what_is_left_behind_ends_with_the_run(yard: Yard) -> None:
    began = time.monotonic()
    daemon = "setsid sh -c 'while :; do echo noise; sleep 0.01; done' & sleep 0.1; echo out; exit 3"
    run = await yard.run(shell(daemon))
    assert run.report.exit_code == 3
    assert b"out\n" in run.output
    while len(yard.processes()) > 2:  # the container's process 1, and the launcher
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.05)


async def test_a_fork_bomb_meets_the_limit_and_the_launcher_survives(yard: Yard) -> None:
    script = "bomb() { bomb | bomb & }; bomb; sleep 1; exit 5"
    run = await yard.run(shell(script, run_seconds=8, grace_seconds=1), PidsLimit=40)
    assert b"can't fork" in run.output
    assert run.report.shell_exit_code in {5, 2}  # the shell's own, when it can't start "sleep"


async def test_a_limit_that_leaves_no_process_is_said(yard: Yard) -> None:
    report = (await yard.run(shell("true"), PidsLimit=1)).report
    assert report.shell_exit_code == 126
    assert report.error == "cannot fork: Resource temporarily unavailable"


async def test_docker_stop_reaches_the_program(yard: Yard) -> None:
    directory = await asyncio.to_thread(yard.waiting)
    script = "trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    running = asyncio.create_task(ended(directory, shell(script)))
    while not (directory.output.exists() and directory.output.read_bytes()):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(yard.call, lambda api, container: api.stop(container, timeout=10))
    run = await running
    assert run.report.exit_code == yard.state()["ExitCode"] == 9
    assert run.report.stopped
    assert run.output.endswith(b"stopping\n")


async def test_a_killed_container_has_no_report(yard: Yard) -> None:
    directory = await asyncio.to_thread(yard.waiting)
    async with connected(directory) as launcher:
        await launcher.launch(shell("echo before; sleep 60"))
        while not directory.output.read_bytes():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(yard.call, lambda api, container: api.kill(container))
        with pytest.raises(Exception, match="without a report"):
            await launcher.wait_for_report()
    assert directory.output.read_bytes() == b"before\n"


async def test_it_is_found_again_after_the_worker_crashed(yard: Yard) -> None:
    directory = await asyncio.to_thread(yard.waiting)
    async with connected(directory) as launcher:
        await launcher.launch(shell("echo one; sleep 0.5; echo two; exit 4"))
    async with connected(directory) as launcher:
        report = await launcher.wait_for_report()
    assert (report.exit_code, directory.output.read_bytes()) == (4, b"one\ntwo\n")
    assert directory.read_report() == report


# -- the account


SPIN = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; cat /proc/$$/schedstat"
"""Some 200 ms of CPU, and the kernel's own account of them."""


@pytest.mark.parametrize("script", [SPIN, f"sh -c '{SPIN}'; true"], ids=["child", "grandchild"])
async def test_cpu_of_a_spin_is_counted_within_15_percent(yard: Yard, script: str) -> None:
    run = await yard.run(shell(script))
    own = int(run.output.split()[0])
    assert own > 100_000_000
    assert 0.85 * own < run.report.cpu_ns < 1.15 * own


async def test_cpu_of_what_nobody_waited_for_is_counted(yard: Yard) -> None:
    script = f"(sh -c '{SPIN}; touch /tmp/done; sleep 60' &); "
    run = await yard.run(shell(script + "while [ ! -e /tmp/done ]; do sleep 0.05; done"))
    assert run.report.cpu_ns > 0.85 * int(run.output.split()[0])


@pytest.mark.parametrize("megabytes", [20, 50])
async def test_peak_memory_is_within_20_percent(yard: Yard, megabytes: int) -> None:
    """dd holds one block."""
    script = f"dd if=/dev/zero bs={megabytes}M count=1 of=/dev/null"
    report = (await yard.run(shell(script), Memory=256 * MEBIBYTE, MemorySwap=-1)).report
    assert report.exit_code == 0
    wanted = megabytes * MEBIBYTE
    assert wanted <= report.memory_bytes < 1.2 * wanted
    assert wanted <= report.group_memory_bytes < 1.4 * wanted


async def test_out_of_memory_is_said(yard: Yard) -> None:
    report = (await yard.run(shell("exec tail /dev/zero"))).report
    assert report.out_of_memory
    assert report.signal == 9
    fine = (await yard.run(shell("true"))).report
    assert not fine.out_of_memory


async def test_out_of_memory_of_a_grandchild_is_said(yard: Yard) -> None:
    report = (await yard.run(shell("tail /dev/zero; exit 3"))).report
    assert (report.out_of_memory, report.exit_code) == (True, 3)


async def test_memory_filled_with_files_is_no_end_of_the_launcher(yard: Yard) -> None:
    """These belong to no process: whatever is killed, memory stays full."""
    script = "for n in 1 2 3; do dd if=/dev/zero of=/dev/shm/$n bs=1M count=100; done; exit 3"
    report = (await yard.run(shell(script), ShmSize=200 * MEBIBYTE)).report
    assert report.out_of_memory
    assert report.shell_exit_code in {3, 137}


async def test_bytes_on_the_disk_are_counted(yard: Yard) -> None:
    script = "dd if=/dev/zero of=/tmp/x bs=1M count=8 conv=fsync"
    report = (await yard.run(shell(script))).report
    assert 8 * MEBIBYTE <= report.io_bytes < 12 * MEBIBYTE


async def test_bytes_over_the_network_are_counted(yard: Yard) -> None:
    gateway = "$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"
    script = f"ping -q -c 5 -i 0.2 -s 10000 {gateway}"
    report = (await yard.run(shell(script), NetworkMode="bridge")).report
    assert 100_000 < report.network_bytes < 130_000


async def test_loopback_does_not_count(yard: Yard) -> None:
    report = (await yard.run(shell("ping -q -c 3 -i 0.1 -s 10000 127.0.0.1"))).report
    assert (report.exit_code, report.network_bytes) == (0, 0)


async def test_the_second_version_of_control_groups_is_read_too(yard: Yard, tmp_path: Path) -> None:
    """Files as the kernel writes them, at the path where the launcher reads them."""
    group = tmp_path / "group"
    group.mkdir()
    files = {
        "cgroup.controllers": "cpu io memory",
        "cgroup.type": "domain",
        "cpu.stat": "usage_usec 1000000\nuser_usec 9\nsystem_usec 9\n",
        "memory.peak": "12345678\n",
        "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=9\n8:16 rbytes=10 wbytes=20 dbytes=9\n",
    }
    for name, text in files.items():
        (group / name).write_text(text)
    script = (
        "cd /sys/fs/cgroup; echo usage_usec 61000000 >cpu.stat; "
        "printf 'oom 2\\noom_kill 2\\n' >memory.events; echo 8:0 rbytes=40000033 >io.stat"
    )
    mounts = [f"{group}:/sys/fs/cgroup"]
    report = (await yard.run(shell(script), Binds=mounts)).report
    assert (report.cpu_ns, report.group_memory_bytes) == (60_000_000_000, 12_345_678)
    assert (report.io_bytes, report.out_of_memory) == (40_000_000, True)
