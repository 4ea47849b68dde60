"""The launcher's messages to the worker, parsed from the lines that ``launcher/main.c`` writes."""

import msgspec

from abaco_proto.errors import Unavailable


class ProgramStarted(msgspec.Struct, frozen=True):
    """The program was started; ``started_ns`` is nanoseconds since 1970."""

    started_ns: int


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. Times are nanoseconds since 1970 (0: never), sizes are bytes.

    ``error`` is the reason if the program could not be run; the exit code is then 127 (not found)
    or 126. ``signal`` is that which ended the program, or 0. ``memory_bytes`` is the peak of the
    largest process. ``group_memory_bytes`` is the peak of the whole container with its page cache
    and its start, or 0 if unknown. ``network_bytes`` excludes loopback; in the host's network it
    has no meaning. ``stopped`` is whether something outside, usually the engine, stopped the
    container.
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
    error: str

    @property
    def shell_exit_code(self) -> int:
        """The exit code as a shell and Docker report it: 128 + ``signal`` after a signal."""
        return 128 + self.signal if self.signal else self.exit_code


LauncherMessage = ProgramStarted | RunReport


def parse_started(text: str) -> ProgramStarted:
    """Parse the start, which the request's id may precede; raises as :func:`parse_report`."""
    return ProgramStarted(_number(text.rpartition(" ")[2]))


def parse_report(line: str) -> RunReport:
    """Parse the line of a report, in which the request's id may precede the fields.

    Raises:
        Unavailable: the line is not a report.
    """
    numbers, _, error = line.rstrip("\n").partition(" words=")
    fields = dict(part.split("=", 1) for part in numbers.split(" ") if "=" in part)

    def value(key: str) -> int:
        return _number(fields.get(key, ""))

    return RunReport(
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
        stopped=_number(fields.get("stopped", "0")) > 0,  # older launchers do not send it
        error=error,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise Unavailable(f"the launcher sent {text[:40]!r} where a number is expected")
    return int(text)
