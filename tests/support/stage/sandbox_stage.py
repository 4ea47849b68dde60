"""Sandboxes in a real container: one launcher, one request after another."""

import functools
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import msgspec
from docker.errors import APIError

import images
from abaco_worker.domain.engine_values import LAUNCHER_PATH
from abaco_worker.domain.run_report import RunReport, parse_report
from abaco_worker.domain.run_request import RunRequest
from abaco_worker.launcher import build
from deadlines import LIMIT_SECONDS

IMAGE = "abaco-test/sandbox"
MEBIBYTE = 1024 * 1024
NO_NEW_PRIVILEGES = 1
OWN_NETWORK = 2
CONNECTED_NETWORK = 4
SECONDS = int(LIMIT_SECONDS)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000:Anna:/home/anna:/bin/sh\n"
GROUP = b"root:x:0:\nanna:x:1000:\naudio:x:29:anna\n"
RECIPE = images.WITH_SHELL + (
    "COPY passwd group /etc/\nCOPY probe /bin/probe\n"
    'RUN ["/bin/sh", "-c", "mkdir -m 1777 /tmp; cp /bin/probe /bin/suid; chmod 4755 /bin/suid; '
    'mkdir -m 777 /data; echo kept >/data/file; chown 1000 /data/file"]\n'
)


class Ended(msgspec.Struct, frozen=True):
    report: RunReport
    output: bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()

    @property
    def status(self) -> int:
        return self.report.shell_exit_code


# -- programs and images


@functools.cache
def probe() -> bytes:
    """The program of ``sandbox_probe.c``."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "probe"
        source = Path(__file__).with_name("sandbox_probe.c")
        flags = ("-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror")
        subprocess.run([build.compiler(), *flags, "-o", target, source], check=True)
        return target.read_bytes()


def build_image(tag: str = IMAGE, more: str = "", recipe: str = RECIPE) -> str:
    files = {"passwd": PASSWD, "group": GROUP, "probe": probe()}
    images.build(tag, recipe + more, files)
    return tag


Edit = tuple[str, str, str]
"""A source file of the launcher, a text in it, and its replacement."""


def changed_program(folder: Path, edits: Sequence[Edit]) -> Path:
    """The launcher without one of its steps."""
    sources = folder / "sources"
    for path in build.SOURCES.rglob("*.[ch]"):
        target = sources / path.relative_to(build.SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name, old, new in edits:
        path = sources / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))
    target = folder / "launcher"
    files = map(str, sources.rglob("*.c"))
    words = [build.compiler(), *build.FLAGS, "-Wno-unused", "-o", str(target), *files]
    subprocess.run(words, check=True, capture_output=True)
    return target


def compile_with_launcher(source: Path, target: Path) -> Path:
    """A program with a ``main`` of its own that uses the launcher's parts."""
    files = [path for path in build.SOURCES.rglob("*.c") if path.name not in {"main.c", "helper.c"}]
    words = [build.compiler(), *build.FLAGS, "-Werror", f"-I{build.SOURCES}", "-o", str(target)]
    subprocess.run([*words, str(source), *map(str, files)], check=True)
    return target


# -- a container and its launcher


class Slot:
    """A container whose process 1 pauses, and the launcher that makes sandboxes in it."""

    command = "sandbox"
    """What the helper is asked for."""

    def __init__(self, folder: Path, program: Path, image: str, limits: Mapping[str, Any]) -> None:
        self.api = docker.APIClient(version="auto", timeout=SECONDS)
        self.folder = folder
        self._program = program
        (folder / "0" / "run").mkdir(parents=True, exist_ok=True)
        made = self.api.create_container(
            image,
            entrypoint=[LAUNCHER_PATH, "pause"],
            user="0:0",
            host_config={
                "NetworkMode": "none",
                "Memory": 256 * MEBIBYTE,
                "MemorySwap": 256 * MEBIBYTE,
                "PidsLimit": 130,
                **limits,
                "Binds": [f"{program}:{LAUNCHER_PATH}:ro", *limits.get("Binds", [])],
            },
        )
        self.id: str = made["Id"]
        starter = folder / "probe"
        starter.write_bytes(probe())
        starter.chmod(0o755)
        self.helper = subprocess.Popen(
            [starter, "in-session", program, "helper", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.launcher = 0
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._lines = self._socket.makefile("r")

    def start_container(self) -> None:
        self.api.start(self.id)
        self.pause: int = self.api.inspect_container(self.id)["State"]["Pid"]

    def connect(self) -> list[str]:
        """Connect, and return the greeting: how the last request ended, if any, then the state."""
        self._lines.close()
        self._socket.close()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        directory = os.open(self.folder / "0" / "run", os.O_PATH)  # the path itself may be too long
        self._socket.connect(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
        self._lines = self._socket.makefile("r")
        greeting = [self.read_line()]
        while greeting[-1].startswith(("report ", "refused ")):
            greeting.append(self.read_line())
        return greeting

    def ask(self, line: str) -> str:
        """The helper's answer."""
        assert self.helper.stdin is not None
        assert self.helper.stdout is not None
        self.helper.stdin.write(line)
        self.helper.stdin.flush()
        return self.helper.stdout.readline()

    def start(self) -> None:
        self.start_container()
        answer = self.ask(f"{self.command} {self.pause} {self.id} 0\n")
        assert answer.startswith("started "), answer
        self.launcher = int(answer.split()[1])
        assert self.connect() == ["waiting\n"]

    def run(
        self,
        *argv: str,
        memory: int = 0,
        processes: int = 0,
        cpu_us: int = 0,
        flags: int = 0,
        hosts: str | None = None,
        environment: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
        **more: Any,
    ) -> Ended:
        """Run one message; it returns when nothing is left of it."""
        wanted = RunRequest(
            argv=argv, environment=environment or {}, **{"output_bytes": 10**7, **more}
        )
        self._count += 1
        name = f"test-{self._count}"
        numbers = (memory, processes, cpu_us, flags)
        head = b"".join(b"%d\0" % number for number in numbers)
        if hosts is not None:
            head += hosts.encode() + b"\0"
        with (
            tempfile.TemporaryFile(dir=self.folder) as output,
            tempfile.TemporaryFile(dir=self.folder) as report,
        ):
            self.request(name, head + wanted.encode(), output.fileno(), report.fileno())
            line = self.read_line()
            if meanwhile:
                assert line.startswith(f"started {name} ")
                meanwhile()
            while line.startswith("started "):
                line = self.read_line()
            assert self.read_line() == "waiting\n", line
            assert line.startswith(f"report {name} "), line
            report.seek(0)
            assert report.read().decode() == line
            output.seek(0)
            return Ended(parse_report(line.removeprefix(f"report {name} ")), output.read())

    def request(self, name: str, body: bytes, *files: int) -> None:
        """Send a request without its answer; the body is without the request's id."""
        data = name.encode() + b"\0" + body
        self.send_files(b"RUN2" + struct.pack("=I", len(data)) + data, *files)

    def send_files(self, data: bytes, *files: int) -> None:
        sent = socket.send_fds(self._socket, [data], files)
        self._socket.sendall(data[sent:])

    @property
    def name(self) -> str:
        """The id of the request that was sent last."""
        return f"test-{self._count}"

    def shell(self, script: str, **more: Any) -> Ended:
        return self.run("/bin/sh", "-c", script, **more)

    def send(self, verb: bytes, body: bytes = b"") -> None:
        self._socket.sendall(verb + struct.pack("=I", len(body)) + body)

    def halt(self, name: str | None = None) -> None:
        """End a request, that which runs by default."""
        self.send(b"HALT", (name or self.name).encode())

    def read_line(self) -> str:
        return self._lines.readline()

    def remove(self) -> None:
        with suppress(APIError):
            self.api.remove_container(self.id, force=True, v=True)
        self.api.close()
        self._lines.close()
        self._socket.close()
        self.helper.communicate(timeout=SECONDS)


@contextmanager
def slot(
    folder: Path, image: str = IMAGE, program: Path | None = None, **limits: Any
) -> Iterator[Slot]:
    program = program or build.build()
    assert program is not None
    with shared_mount(folder):
        made = Slot(folder, program, image, limits)
        try:
            made.start()
            yield made
        finally:
            made.remove()
        assert mounted_below(folder) == []


@contextmanager
def shared_mount(folder: Path) -> Iterator[None]:
    """While inside, the folder is a shared mount, as systemd makes all mounts of a machine."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "--make-shared", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mounted_below(folder: Path) -> list[str]:
    """What the machine has mounted below a folder."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in mounts if line.split()[4].startswith(f"{folder}/")]


# -- beside it


def docker_run(image: str, *argv: str, **limits: Any) -> tuple[str, int]:
    """Output and exit code of the same by the engine alone, under the same limits."""
    options = {name: limits.pop(name) for name in ("user", "working_dir") if name in limits}
    api = docker.APIClient(version="auto", timeout=SECONDS)
    made = api.create_container(
        image,
        list(argv),
        host_config={
            "NetworkMode": "none",
            "Memory": 256 * MEBIBYTE,
            "MemorySwap": 256 * MEBIBYTE,
            "PidsLimit": 130,
            **limits,
        },
        **options,
    )
    try:
        api.start(made["Id"])
        status = api.wait(made["Id"], timeout=SECONDS)["StatusCode"]
        return api.logs(made["Id"]).decode(errors="replace"), status
    finally:
        api.remove_container(made["Id"], force=True, v=True)
        api.close()


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition of other processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
