"""What a launcher says, from its lines (``main.c`` writes them)."""

import msgspec

from abaco_proto.errors import Unavailable


class Started(msgspec.Struct, frozen=True):
    """The program runs, since so many ns after 1970."""

    started_ns: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. Times are ns since 1970 (0: never), sizes bytes.

    ``words`` say why the program could not be run, and the exit code then is 127 (not found) or
    126. ``signal`` is 0 unless one ended it. ``memory_bytes`` is the peak of the largest process;
    ``group_memory_bytes`` that of the whole container with page cache and its start, 0 where
    unknown. ``network_bytes`` leave loopback out, and mean nothing in the host's network.
    ``stopped`` says that somebody outside, the engine most likely, wanted the container to end.
    """

    exit_code: int
    signal: int
    started_ns: int
    ended_ns: int
    first_output_ns: int
    cpu_ns: int
    memory_bytes: int
    group_memory_bytes: int
    io_bytes: int
    network_bytes: int
    output_bytes: int
    dropped_bytes: int
    out_of_memory: bool
    halted: bool
    timed_out: bool
    stopped: bool
    words: str

    @property
    def status(self) -> int:
        """The exit code as a shell and Docker give it: 128 and more for a signal."""
        return 128 + self.signal if self.signal else self.exit_code


Message = Started | Report


def parse_started(text: str) -> Started:
    """From what follows the word; raises as :func:`parse_report` does."""
    return Started(_number(text))


def parse_report(line: str) -> Report:
    """A report from its line.

    Raises:
        Unavailable: it is none.
    """
    numbers, _, words = line.rstrip("\n").partition(" words=")
    said = dict(part.split("=", 1) for part in numbers.split(" ") if "=" in part)

    def value(key: str) -> int:
        return _number(said.get(key, ""))

    return Report(
        exit_code=value("exit"),
        signal=value("signal"),
        started_ns=value("started"),
        ended_ns=value("ended"),
        first_output_ns=value("first_output"),
        cpu_ns=value("cpu"),
        memory_bytes=value("memory"),
        group_memory_bytes=value("cgroup_memory"),
        io_bytes=value("io"),
        network_bytes=value("network"),
        output_bytes=value("kept"),
        dropped_bytes=value("dropped"),
        out_of_memory=value("oom") > 0,
        halted=value("halted") > 0,
        timed_out=value("timed_out") > 0,
        stopped=_number(said.get("stopped", "0")) > 0,  # older launchers do not tell
        words=words,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise Unavailable(f"the launcher answers what is no number: {text[:40]!r}")
    return int(text)
