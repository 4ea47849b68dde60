"""What a program in a sandbox tries, and that the step which stops it is the one that does.

Each attack runs twice: with the launcher, where it must fail, and with a launcher that was compiled
without the step, where it must succeed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox_stage import OWN_NETWORK, Edit, build_image, changed_program, slot

ROOT = "sandbox/root.c"
PLAN = "sandbox/plan.c"
SPAWN = "sandbox/spawn.c"


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """``first`` is a message, ``then`` the next one, whose output tells whether it was stopped."""

    first: str = ":"
    then: str
    stopped: Callable[[str], bool]
    without: list[Edit]
    limits: Mapping[str, Any] = {}
    request: Mapping[str, Any] = {}


def lacks(*words: str) -> Callable[[str], bool]:
    return lambda said: said.endswith("--") and not any(word in said for word in words)


def says(*words: str) -> Callable[[str], bool]:
    return lambda said: said.endswith("--") and all(word in said for word in words)


FIRST_LINE = "int place = open_below(new_root, step->path, O_PATH);"
"""Of what mounts one file system after another in the new root."""
NO_OVERLAY = (
    ROOT,
    'mount("overlay", "/proc/root", "overlay", 0, options)',
    'mount("/", "/proc/root", NULL, MS_BIND, NULL)',
)
NO_CAPABILITY_DROP = [
    ("confine.c", "if (!(container.capabilities[BOUNDING] >> i & 1) &&", "if (0 &&"),
    ("confine.c", "!set_capabilities(sets))", "0)"),
]
NO_FILTER = ("confine.c", "for (size_t i = container.filters; i-- > 0;)", "for (size_t i = 0; i;)")
SAME_GROUP = (
    "sandbox/groups.c",
    (
        "(errno != EEXIST || !remove_group(in->base, MESSAGE, 0) ||\n"
        "         mkdirat(in->base, MESSAGE, 0755)))"
    ),
    "errno != EEXIST)",
)
"""Else the launcher refuses the next message: processes that are left are in the group."""
NO_PROCESS_NAMESPACE = (SPAWN, "CLONE_NEWPID | CLONE_NEWIPC", "CLONE_NEWIPC")

ATTACKS = {
    "files of another message": Attack(
        first="echo left >/left; echo left >/tmp/left; echo left >>/etc/passwd",
        then="cat /left /tmp/left /etc/passwd",
        stopped=lacks("\nleft"),
        without=[NO_OVERLAY],
    ),
    "/dev, /dev/shm and /sys/fs/cgroup of another": Attack(
        first="for d in /dev /dev/shm /sys/fs/cgroup; do echo left >$d/left; done; "
        "chmod 600 /dev/full",
        then="cat /dev/left /dev/shm/left /sys/fs/cgroup/left; stat -c %a /dev/full",
        stopped=lacks("\nleft", "600"),
        without=[
            (
                PLAN,
                "} else if (is_tmpfs && whole && !read_only)\n        step->kind = FRESH;",
                "} else if (is_tmpfs && whole && !read_only)\n        step->kind = MASK;",
            )
        ],
    ),
    "the file behind a mask": Attack(
        first="chmod 604 /proc/keys",
        then="stat -c %a /proc/keys",
        stopped=says("666"),
        without=[(PLAN, "step->kind = PART;", "step->kind = MASK;")],
    ),
    "the hosts of another": Attack(
        first="echo 1.2.3.4 left >>/etc/hosts; echo left >/etc/hostname",
        then="cat /etc/hosts /etc/hostname",
        stopped=lacks("left"),
        without=[
            (PLAN, "step->kind = COPY;", "step->kind = MASK;"),
        ],
    ),
    "a volume of another": Attack(
        first="echo left >/data/left; chmod 700 /data",
        then="ls /data; stat -c %a /data; cat /data/file",
        stopped=says("777", "kept"),
        without=[(PLAN, "step->kind = VOLUME;", "step->kind = MASK;")],
    ),
    "System V and POSIX ipc": Attack(
        first="probe leave-ipc; touch /dev/mqueue/left",
        then="probe find-ipc; ls /dev/mqueue",
        stopped=lacks("done", "left"),
        without=[(SPAWN, "CLONE_NEWIPC | ", "")],
    ),
    "processes and abstract sockets of another": Attack(
        first="probe abstract-socket; setsid sleep 60 &",
        then="cat /proc/net/unix; ps",
        stopped=lacks("left-behind", "sleep 60"),
        without=[NO_PROCESS_NAMESPACE, SAME_GROUP],
    ),
    "signal or trace the launcher": Attack(
        then="ps -o comm; for n in $(ls /proc); do readlink /proc/$n/cwd /proc/$n/exe; done",
        stopped=lacks("launcher", "abaco-pause"),
        without=[NO_PROCESS_NAMESPACE],
    ),
    "the host name": Attack(
        first="hostname left",
        then="hostname",
        stopped=lacks("left"),
        without=[(SPAWN, " | CLONE_NEWUTS", "")],
        limits={"CapAdd": ["SYS_ADMIN"]},
    ),
    "the old root by chroot": Attack(
        then="probe leave-root",
        stopped=says("the same root"),
        without=[
            (ROOT, 'syscall(SYS_pivot_root, ".", ".")', 'chroot(".")'),
            (ROOT, 'fchdir(old_root) || umount2(".", MNT_DETACH) || ', ""),
        ],
    ),
    "a device of the machine": Attack(
        then="mknod /tmp/fuse c 10 229; (: <>/tmp/fuse) && echo opened",
        stopped=lacks("opened"),
        without=[
            (
                "container.c",
                "if (!container_group(line, path, &controllers))",
                'if (!container_group(line, path, &controllers) || strstr(path, "/devices/"))',
            ),
        ],
    ),
    "mounts": Attack(
        then="mount -t tmpfs none /tmp; umount /proc/keys; mount -o remount,rw,bind /proc/sys; "
        "echo left >/proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname; "
        "grep -c ' /tmp ' /proc/mounts",
        stopped=says("(none)", "\n0"),
        without=[*NO_CAPABILITY_DROP, NO_FILTER],
    ),
    "namespaces": Attack(
        then="unshare -m echo unshared; nsenter -t 1 -m echo entered",
        stopped=lacks("unshared", "entered"),
        without=[*NO_CAPABILITY_DROP, NO_FILTER],
    ),
    "forbidden system calls": Attack(
        then="probe call 248; probe call 250; probe call 321; probe call 175; probe call 425",
        stopped=lambda said: said.count("Operation not permitted") >= 4,
        without=[NO_FILTER],
    ),
    "a descriptor of the machine's root": Attack(
        then="pwd; ls /proc/self/cwd/",
        stopped=lambda said: said == "",
        without=[
            ("child.c", "syscall(CALL_CLOSE_RANGE, FAILURE + 1 + 2 * sandbox.on, ~0u, 0)", "0"),
            ("child.c", "|| *entered_path != '/')", ")"),
            (SPAWN, "if (!root_build(words)", 'if (open("/", O_PATH) < 0 || !root_build(words)'),
        ],
        request={"directory": "/proc/self/fd/12"},
    ),
    "what the engine makes read-only": Attack(
        then="echo left >/proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname",
        stopped=says("Read-only", "(none)"),
        without=[
            (
                ROOT,
                FIRST_LINE,
                f"if (step->kind == COVERED) continue;\n{FIRST_LINE}",
            )
        ],
        limits={"CapAdd": ["SYS_ADMIN"]},
    ),
    "what the engine hides": Attack(
        then="wc -c </proc/timer_list; ls /proc/acpi /sys/firmware",
        stopped=lambda said: said.startswith("0\n"),
        without=[
            (
                ROOT,
                FIRST_LINE,
                f"if (step->kind == PART) continue;\n{FIRST_LINE}",
            )
        ],
    ),
    "keys of another": Attack(
        first="probe add-key",
        then="probe find-key",
        stopped=lacks("done"),
        without=[
            ("confine.c", 'syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.abaco")', "0")
        ],
        limits={"SecurityOpt": ["seccomp=unconfined"]},
    ),
    "connections of another": Attack(
        first="probe connect",
        then="cat /proc/net/tcp",
        stopped=lacks("0100007F"),
        without=[(SPAWN, "sandbox.network == OWN_NETWORK && !network_unshare(words)", "0")],
        request={"flags": OWN_NETWORK},
    ),
    "more than its memory": Attack(
        then="probe touch 100",
        stopped=lacks("touched"),
        without=[
            ("sandbox/groups.c", "hierarchies[i].message >= 0 && !write_at", "0 && !write_at")
        ],
        request={"memory": 64 << 20},
    ),
    "more than its processes": Attack(
        then="probe bomb",
        stopped=says("forks 18"),
        without=[
            ("sandbox/groups.c", "hierarchies[i].message >= 0 && !write_at", "0 && !write_at")
        ],
        request={"processes": 20},
    ),
}


IMAGE = "abaco-test/sandbox-attacks"
"""Not the image of other tests: they run at the same time, and theirs has no volume."""


@pytest.fixture(scope="module", autouse=True)
def image() -> str:
    return build_image(IMAGE, more='VOLUME ["/data"]\n')


def said(folder: Path, attack: Attack, program: Path | None) -> str:
    with slot(folder, IMAGE, program, **attack.limits) as made:
        made.shell(attack.first, **attack.request)
        return made.shell(f"exec 2>&1; {attack.then}; echo --", **attack.request).text


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_stopped(tmp_path: Path, name: str) -> None:
    attack = ATTACKS[name]
    output = said(tmp_path / "slot", attack, None)
    assert attack.stopped(output), output


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_the_step_that_stops_it(tmp_path: Path, name: str) -> None:
    attack = ATTACKS[name]
    program = changed_program(tmp_path / "changed", attack.without)
    output = said(tmp_path / "slot", attack, program)
    assert not attack.stopped(output), output
