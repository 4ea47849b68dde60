"""A sandbox is what ``docker run`` makes, and nothing of it is left for the next."""

import asyncio
import os
import re
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import images
import sandbox_stage
from abaco_worker.engine.docker_engine import DockerEngine
from abaco_worker.engine.docker_helper import ContainerChannel
from abaco_worker.launcher import build
from beside_docker_run import STATE, differences
from sandbox_stage import (
    IMAGE,
    MEBIBYTE,
    NO_NEW_PRIVILEGES,
    Slot,
    alive,
    build_image,
    compile_with_launcher,
    docker_run,
    eventually,
    mounted_below,
    slot,
)

RUNS = int(os.environ.get("ABACO_TEST_SANDBOXES", "500"))
GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    build_image()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slot]:
    """One slot for all tests that end no launcher: they are messages of one worker."""
    with slot(tmp_path_factory.mktemp("slot") / "s") as made:
        yield made


# -- beside docker run


@pytest.mark.parametrize("user", ["", "anna"])
def test_a_program_cannot_tell_it_from_docker_run(shared: Slot, user: str) -> None:
    ours = shared.shell(STATE, user=user).text
    assert "CapBnd" in ours
    theirs = docker_run(IMAGE, "/bin/sh", "-c", STATE, user=user)[0]
    assert differences(ours, theirs.strip()) == []


@pytest.mark.parametrize("user", ["", "anna"])
def test_every_system_call_is_answered_as_with_docker_run(shared: Slot, user: str) -> None:
    ours = shared.run("/bin/probe", "calls", user=user).text.splitlines()
    theirs = docker_run(IMAGE, "/bin/probe", "calls", user=user)[0].strip().splitlines()
    assert len(theirs) > 500
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]] == []


def test_a_system_call_that_the_engine_does_not_know_is_not_implemented(shared: Slot) -> None:
    """With EPERM, which a filter from the engine's own list gives, C libraries do not fall back."""
    assert shared.run("/bin/probe", "call", "470").text == "call Function not implemented"


def test_the_filter_decides_as_the_engines(tmp_path: Path, shared: Slot) -> None:
    """The launcher puts a search tree before it, because the kernel loads that faster."""
    source = Path(sandbox_stage.__file__).with_name("filter_check.c")
    program = compile_with_launcher(source, tmp_path / "check")
    said = subprocess.run([program, str(shared.pause), shared.id], stdout=-1, check=True).stdout
    cases, differences, _, _, original_us, tree_us = map(int, said.split())
    assert cases > 250_000
    assert differences == 0
    assert tree_us < original_us


@pytest.mark.parametrize(
    "limits",
    [
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"SecurityOpt": ["no-new-privileges"]},
        {"CapDrop": ["ALL"]},
        {"CapAdd": ["SYS_NICE", "NET_ADMIN"]},
        {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": "size=1m,mode=1777", "/new": ""}},
        {"ShmSize": MEBIBYTE, "Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 100}]},
        {
            "Privileged": False,
            "Devices": [
                {
                    "PathOnHost": "/dev/fuse",
                    "PathInContainer": "/dev/fuse",
                    "CgroupPermissions": "r",
                }
            ],
        },
        {"CgroupnsMode": "private"},
    ],
    ids=str,
)
def test_other_settings_of_the_container_are_copied(tmp_path: Path, limits: dict[str, Any]) -> None:
    script = (
        "grep -E '^(Cap|Sec|NoNew)' /proc/1/status; cat /proc/1/limits /proc/1/cgroup; ls -l /dev; "
        "cat /proc/1/mountinfo; touch /x /tmp/x /new/x; df -k | grep tmpfs | grep -v /etc/"
    )
    with slot(tmp_path / "s", **limits) as made:
        ours = made.shell(script).text
    theirs = docker_run(IMAGE, "/bin/sh", "-c", script, **limits)[0]
    assert differences(ours, theirs.strip()) == []


class ByContainer(Slot):
    """Where the helper is a container of its own."""

    channel: ContainerChannel

    def ask(self, line: str) -> str:
        return asyncio.run(self.channel.ask(line))


async def test_the_engine_runs_the_helper_where_the_worker_may_not(tmp_path: Path) -> None:
    engine = DockerEngine(os.environ, capacity=1)
    host_id = f"t-{uuid.uuid4().hex[:8]}"
    made = ByContainer(tmp_path / "s", _program(), IMAGE, {})
    try:
        made.channel = await engine.helper(host_id, _program(), tmp_path / "s")
        await asyncio.to_thread(made.start)
        made.channel.close()
        script = "echo left >>/tmp/left; id -u; grep -c left /tmp/left; echo $$"
        for _ in range(2):
            run = await asyncio.to_thread(made.shell, script, user="anna")
            assert run.text.split()[-3:] == ["1000", "1", "1"]
            assert run.report.group_memory_bytes > 0
        assert left_in_layers(made) == []
    finally:
        await asyncio.to_thread(made.remove)
        engine.close()


# -- programs


def test_a_descriptor_is_no_way_out(shared: Slot) -> None:
    """CVE-2024-21626: a directory that was open in the launcher led to the machine's root."""
    for number in range(64):
        run = shared.shell("pwd; ls /", directory=f"/proc/self/fd/{number}")
        assert (run.status, run.text) == (126, "")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["/bin/sh", "-c", "exit 7"], 7),
        (["nothing-like-it"], 127),
        (["/etc/passwd"], 126),
        (["/bin"], 126),
        (["/bin/sh", "-c", "kill -9 $$; exit 3"], 3),
    ],
)
def test_exit_codes_are_dockers(shared: Slot, argv: list[str], status: int) -> None:
    assert shared.run(*argv).status == status


def test_a_user_of_the_image_runs_it(shared: Slot) -> None:
    script = "id; touch /tmp/mine && stat -c %u /tmp/mine; cat /proc/self/uid_map; env | grep HOME"
    ours = shared.shell(script, user="1000").text
    assert ours == docker_run(IMAGE, "/bin/sh", "-c", script, user="1000")[0].strip()
    assert "uid=1000(anna)" in ours


def test_no_new_privileges_is_a_setting_of_the_message(shared: Slot) -> None:
    script = "suid euid; grep NoNewPrivs /proc/self/status"
    assert shared.shell(script, user="anna").text.split() == ["0", "NoNewPrivs:", "0"]
    held = shared.shell(script, user="anna", flags=NO_NEW_PRIVILEGES).text
    assert held.split() == ["1000", "NoNewPrivs:", "1"]


def test_it_is_process_1_and_its_output_can_be_opened(shared: Slot) -> None:
    assert shared.shell("echo $$ >/proc/1/fd/1; ls /proc | grep -c '^[0-9]'").text.startswith("1\n")


def test_the_environment_is_the_messages_own(shared: Slot) -> None:
    shared.shell("export LEFT=1", environment={"FIRST": "1"})
    names = {line.split("=")[0] for line in shared.run("env").text.splitlines()}
    assert names == {"PATH", "HOSTNAME", "HOME"}


def test_the_host_file_is_pristine_for_each(shared: Slot) -> None:
    for number in (1, 2):
        said = shared.shell(f"echo 9.9.9.{number} other >>/etc/hosts; grep -c . /etc/hosts").text
        if number == 1:
            first = said
    assert said == first


def test_a_file_that_the_engine_changes_is_copied_again(shared: Slot) -> None:
    """The sandbox was made before; the engine writes hosts when it connects a network."""
    hosts = Path(shared.api.inspect_container(shared.id)["HostsPath"])
    with hosts.open("a") as file:
        file.write("10.1.2.3 from-the-engine\n")
    assert "from-the-engine" in shared.shell("cat /etc/hosts").text


def test_a_sandbox_that_died_before_its_message_is_made_again(shared: Slot) -> None:
    [child] = Path(f"/proc/{shared.launcher}/task/{shared.launcher}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    eventually(lambda: not alive(int(child)))
    assert shared.shell("echo on").text == "on"


def test_a_halt_ends_it_and_the_launcher_stays(shared: Slot) -> None:
    halted = shared.run("sleep", "60", grace_seconds=0.1, meanwhile=shared.halt)
    assert (halted.report.halted, halted.status) == (True, 137)
    shared.halt()
    assert shared.shell("echo on").text == "on"


def test_its_mounts_are_nowhere_on_the_machine(shared: Slot) -> None:
    """Its directory is on a shared mount there: mounts in a copy of it would spread to it."""
    found: list[str] = []

    def look() -> None:
        found.extend(mounted_below(shared.folder))
        shared.halt()

    assert shared.run("sleep", "60", grace_seconds=0.1, meanwhile=look).report.halted
    assert found == []


def test_a_late_halt_does_not_end_the_next_request(shared: Slot) -> None:
    shared.shell(":")
    late = shared.name
    run = shared.shell("sleep 0.3; echo on", meanwhile=lambda: shared.halt(late))
    assert (run.text, run.report.halted) == ("on", False)


def test_a_program_that_is_the_launchers_own_finds_nothing_to_write(shared: Slot) -> None:
    """CVE-2019-5736: an image that is run by ``/proc/self/exe`` wrote to the host's runc."""
    run = shared.run("/proc/self/exe", "/x", run_seconds=0.2, grace_seconds=0.1)
    assert run.report.timed_out
    program = Path(f"/proc/{shared.launcher}/exe")
    assert str(program.readlink()).startswith("/memfd:")
    with pytest.raises(OSError, match=r"not permitted|busy"):
        program.open("r+b").close()


# -- images


@pytest.mark.parametrize("name", ["dev", "etc", "proc", "sys"])
def test_directories_of_the_image_may_be_links(tmp_path: Path, name: str) -> None:
    tag = f"abaco-test/sandbox-link-{name}"
    # The builder mounts its own in a RUN, so the link is made elsewhere and copied.
    images.build(
        tag,
        f"{images.WITH_SHELL}"
        f'RUN ["/bin/sh", "-c", "mkdir -p /l /moved; ln -s /moved /l/{name}"]\n'
        "FROM scratch\nCOPY --from=0 /bin /bin\nCOPY --from=0 /moved /moved\n"
        "COPY --from=0 /l /\n",
        {},
    )
    script = "ls -la / /moved; cat /etc/hosts /etc/hostname | wc -l; mount; echo x >/dev/null"
    with slot(tmp_path / "s", tag) as made:
        ours = made.shell(f"{script}; echo left >>/etc/hosts; echo left >/dev/shm/left").text
        assert made.shell("grep left /etc/hosts; ls /dev/shm").text == ""
    theirs = docker_run(tag, "/bin/sh", "-c", script)[0]
    assert differences(ours, theirs.strip()) == []


def test_a_read_only_root_stays_so(tmp_path: Path) -> None:
    with slot(tmp_path / "s", ReadonlyRootfs=True, Tmpfs={"/tmp": "mode=1777"}) as made:
        assert "Read-only" in made.shell("exec 2>&1; touch /x; touch /tmp/left").text
        assert made.shell("ls /tmp").text == ""


# -- what it used


def test_out_of_memory_kills_process_1_and_the_next_has_all_of_it(shared: Slot) -> None:
    limit = 64 * MEBIBYTE
    killed = shared.run("/bin/probe", "touch", "100", memory=limit)
    assert (killed.status, killed.report.out_of_memory) == (137, True)
    fits = shared.run("/bin/probe", "touch", "50", memory=limit)
    assert (fits.status, fits.report.out_of_memory, fits.text) == (0, False, "touched")


def test_out_of_memory_in_a_child_is_known(shared: Slot) -> None:
    """Process 1 goes on, as under docker run."""
    run = shared.shell("probe touch 100; echo $?", memory=64 * MEBIBYTE)
    assert (run.text.splitlines()[-1], run.status, run.report.out_of_memory) == ("137", 0, True)


def test_out_of_memory_without_a_limit_of_its_own_is_the_containers(shared: Slot) -> None:
    assert shared.run("/bin/probe", "touch", "300").report.out_of_memory
    assert shared.shell("echo on").text == "on"


def test_its_figures_are_its_own(shared: Slot) -> None:
    touched = shared.run("/bin/probe", "touch", "50").report
    start, spun = (shared.run("/bin/probe", "spin", str(n)).report for n in (0, 200))
    starts, both = (shared.shell(f"probe spin {n} & probe spin {n}; wait").report for n in (0, 100))
    assert touched.group_memory_bytes == pytest.approx(50 * MEBIBYTE, rel=0.05)
    assert spun.group_memory_bytes < 5 * MEBIBYTE
    assert spun.cpu_ns - start.cpu_ns == pytest.approx(200e6, rel=0.05)
    assert both.cpu_ns - starts.cpu_ns == pytest.approx(200e6, rel=0.1)


def test_its_share_of_the_processor_is_limited(shared: Slot) -> None:
    report = shared.run("/bin/probe", "spin", "100", cpu_us=10_000).report
    assert (report.ended_ns - report.started_ns) / 1e9 > 0.5


# -- what is left


def remains(made: Slot) -> list[str]:
    """Processes, mounts, groups and directories of a slot."""
    folder = made.folder / "0" / "layers"
    layers = [
        *folder.glob("upper/**/*"),
        *folder.glob("[0-9]*/upper/**/*"),
        *folder.glob("removed/*"),
    ]
    return [
        *(f"process {pid}" for pid in (made.pause, made.launcher) if alive(pid)),
        *(str(path) for path in GROUPS.glob(f"*/docker/{made.id}")),
        *(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if made.id in line
        ),
        *map(str, layers),  # the next sandbox is made already, and empty
    ]


def left_in_layers(made: Slot) -> list[str]:
    return [left for left in remains(made) if "/layers/" in left]


BUSY = "setsid sleep 1000 & touch /left /dev/shm/left; mkdir -p /a/b/c; sleep 1000"


@pytest.mark.parametrize("way", ["launcher", "container", "pause"])
def test_nothing_is_left_of_a_slot_that_is_killed(tmp_path: Path, way: str) -> None:
    made = Slot(tmp_path / "s", _program(), IMAGE, {})
    made.start()

    def kill() -> None:
        children = Path(f"/proc/{made.launcher}/task/{made.launcher}/children")
        pids.extend(int(pid) for pid in children.read_text().split())
        if way == "container":
            made.api.remove_container(made.id, force=True)
        else:
            os.kill(made.launcher if way == "launcher" else made.pause, signal.SIGKILL)

    pids: list[int] = []
    try:
        with pytest.raises(AssertionError):
            made.shell(BUSY, meanwhile=kill)
        # The container ends with its launcher, and its programs with the container.
        eventually(lambda: not any(alive(pid) for pid in [*pids, made.pause, made.launcher]))
        assert len(pids) == 1
    finally:
        made.remove()
    assert [left for left in remains(made) if "/layers/" not in left] == []
    with slot(tmp_path / "s") as again:  # the next launcher of this folder removes its directory
        assert again.shell("ls /").status == 0
        eventually(lambda: not left_in_layers(again))
    assert remains(again) == []


def _program() -> Path:
    program = build.build()
    assert program is not None
    return program


def counts(made: Slot) -> dict[str, int]:
    """What could grow with each message."""
    groups = [path for path in GROUPS.glob(f"*/docker/{made.id}/**/*") if path.is_dir()]
    return {
        "descriptors": len(list(Path(f"/proc/{made.launcher}/fd").iterdir())),
        "groups": len(groups),
        "mounts": Path(f"/proc/{made.launcher}/mountinfo").read_text().count(str(made.folder)),
        "mounts of the container": len(
            Path(f"/proc/{made.pause}/mountinfo").read_text().splitlines()
        ),
        "directories": len(list((made.folder / "0" / "layers").rglob("*"))),
        "processes": len(made.api.top(made.id)["Processes"]),
    }


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


def test_many_messages_leave_as_much_as_one(shared: Slot) -> None:
    script = "echo x >/x; mkdir -p /tmp/a/b; echo y >>/etc/hosts; (sleep 100 &)"
    for _ in range(20):
        shared.shell(script)
    time.sleep(0.5)  # until the next sandbox is complete
    before, resident = counts(shared), resident_kib(shared.launcher)
    for _ in range(RUNS):
        assert shared.shell(script).status == 0
    eventually(lambda: counts(shared) == before)  # the next sandbox may still be being made
    assert resident_kib(shared.launcher) <= resident + 64


def test_deep_and_wide_trees_are_removed(shared: Slot) -> None:
    script = (
        "for n in $(seq 1 300); do mkdir d; cd d; done; cd /; mkdir -m 0 /tmp/closed; "
        "for n in $(seq 1 2000); do : >/tmp/$n; done; ln -s / /tmp/root; "
        "mkfifo /tmp/pipe; rm -r /data"
    )
    assert shared.shell(script, directory="/tmp").status == 0
    eventually(lambda: not left_in_layers(shared))
    assert shared.shell("cat /data/file; ls -A /tmp").text == "kept"


def test_files_that_the_program_protects_are_removed(tmp_path: Path) -> None:
    script = (
        "mkdir -p /a/b /c; echo x >/a/b/f; echo x >/c/log; "
        "probe immutable /a/b/f; probe immutable /a/b; "
        "probe immutable /c"
    )
    with slot(tmp_path / "s", CapAdd=["LINUX_IMMUTABLE"]) as made:
        for _ in range(2):
            run = made.shell(f"exec 2>&1; {script}")
            assert run.text.split() == ["protect", "done"] * 3
        assert made.shell("ls -d /a /c").status != 0
        eventually(lambda: not left_in_layers(made))


def test_the_next_message_does_not_wait_for_a_long_removal(shared: Slot) -> None:
    """The second process that removes is stopped meanwhile; a bounded number of layers waits."""
    script = "mkdir /many; cd /many; for n in $(seq 1 {}); do : >$n; done"
    count = 1000
    removers: list[int] = []
    while not removers:
        shared.shell(script.format(count))
        removers = [pid for pid in children(shared) if alive_and_stopped(pid)]
        count *= 2
        assert count < 100_000
    try:
        for number in range(5):
            assert shared.shell(script.format(100) + f"; echo {number}").text == str(number)
        assert len(left_in_layers(shared)) >= 6
    finally:
        os.kill(removers[0], signal.SIGCONT)
    eventually(lambda: not left_in_layers(shared))
    eventually(lambda: not any(map(is_remover, children(shared))))  # it ends after the last file


def children(made: Slot) -> list[int]:
    text = Path(f"/proc/{made.launcher}/task/{made.launcher}/children").read_text()
    return [int(pid) for pid in text.split()]


def is_remover(pid: int) -> bool:
    """Whether it has the directory of what is removed, and nothing else, open."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/fd/0").readlink()).endswith("/layers/removed")
    return False


def alive_and_stopped(pid: int) -> bool:
    """Stop a process that removes; false if it is none, or has ended."""
    if not is_remover(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


# -- when there is no sandbox


def refusal(made: Slot) -> str:
    """Of a request, without its id."""
    with pytest.raises(AssertionError, match="refused") as refused:
        made.shell("echo on")
    return str(refused.value).removeprefix(f"refused {made.name} ")


def test_a_request_without_a_sandbox_is_refused_and_can_be_sent_again(shared: Slot) -> None:
    """The program is not to blame: nothing of it has run."""
    place = shared.folder / "0" / "layers" / "files"
    shared.shell(":")  # the next sandbox is made already, or is being made
    place.rename(place.with_name("elsewhere"))
    with suppress(AssertionError):
        shared.shell(":")
    assert re.match(r"cannot make the sandbox: .*: No such file", refusal(shared))
    assert [line[:7] for line in shared.connect()] == ["refused", "waiting"]
    eventually(lambda: not children(shared))
    place.with_name("elsewhere").rename(place)
    assert shared.shell("echo on").text == "on"


def test_a_launcher_without_descriptors_refuses_and_goes_on(shared: Slot) -> None:
    shared.shell(":")
    usual = resource.prlimit(shared.launcher, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{shared.launcher}/fd").iterdir()))
    resource.prlimit(shared.launcher, resource.RLIMIT_NOFILE, (used + 2, usual[1]))
    try:
        with suppress(AssertionError):
            shared.shell(":")  # the sandbox of this one may have been made before
        assert "Too many open files" in refusal(shared)
    finally:
        resource.prlimit(shared.launcher, resource.RLIMIT_NOFILE, usual)
    assert shared.shell("echo on").text == "on"


def test_a_connection_that_the_launcher_ends_has_an_end(shared: Slot) -> None:
    """The sandbox that waits does not hold it open."""
    shared.shell(":")
    eventually(lambda: len(children(shared)) == 1)
    time.sleep(0.2)  # until that sandbox is complete
    shared.send(b"WHAT")
    assert shared.read_line() == "error malformed command\n"
    assert shared.read_line() == ""
    assert shared.connect()[-1] == "waiting\n"


def test_groups_in_the_messages_group_are_removed(shared: Slot) -> None:
    """Else the next message would get that group, with its counters."""

    def make() -> None:
        groups = list(GROUPS.glob(f"**/{shared.id}/message")) + list(
            GROUPS.glob(f"**/docker-{shared.id}.scope/message")
        )
        assert groups
        for group in groups:
            (group / "left" / "left").mkdir(parents=True)

    shared.shell("sleep 0.1", meanwhile=make)
    report = shared.run("/bin/probe", "touch", "5").report
    assert 0 < report.group_memory_bytes < 10 * MEBIBYTE
    shared.run("/bin/probe", "touch", "50")
    assert shared.shell(":").report.group_memory_bytes < 5 * MEBIBYTE
