"""The request to a launcher, and its encoding (``launcher/request.c`` decodes it)."""

import math
import signal
from collections.abc import Mapping, Sequence

import msgspec

from abaco_proto.errors import Malformed

MAX_BYTES = 2 * 1024 * 1024
MAX_STRINGS = 16_384
CONNECTED_NETWORK = 4
"""The flag of a request for the network namespace that came with ``waiting``."""


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one message may use, in a container that stays; 0: only the container's limit applies.

    Its CPU time is limited by the container. ``hosts`` are lines for its ``/etc/hosts`` if it has
    a network namespace of its own; None if it has the container's.
    """

    memory_bytes: int = 0
    processes: int = 0
    no_new_privileges: bool = False
    hosts: str | None = None

    @property
    def fields(self) -> Sequence[str]:
        """The fields that follow the id of a request (``sandbox/spawn.c``)."""
        connected = self.hosts is not None
        cpu_us, flags = 0, self.no_new_privileges | CONNECTED_NETWORK * connected
        numbers = [str(n) for n in (self.memory_bytes, self.processes, cpu_us, flags)]
        return numbers if self.hosts is None else [*numbers, self.hosts]


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher is to run: the image's command, its environment, user and limits.

    ``user`` has the form of ``USER`` in a Dockerfile. The launcher adds PATH, HOSTNAME and HOME
    where they are missing. ``run_seconds`` of 0 is no limit. ``grace_seconds`` are between
    ``stop_signal`` and SIGKILL if the limit or a halt ends the run. With ``sandbox`` the request is
    for a launcher that makes a sandbox for each request, else for one that runs a single request.
    Text is encoded as UTF-8; surrogates stand for bytes that are not UTF-8 (``surrogateescape``).
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str = ""
    user: str = ""
    output_bytes: int
    run_seconds: float = 0
    grace_seconds: float = 10
    stop_signal: int = signal.SIGTERM
    sandbox: SandboxLimits | None = None

    @property
    def verb(self) -> bytes:
        """The first four bytes of the message that carries the request."""
        return b"RUN1" if self.sandbox is None else b"RUN2"

    def encode(self, request_id: str = "") -> bytes:
        """Return the body of the request. With ``sandbox``, it has an id; else that is empty.

        Raises:
            Malformed: the command or the environment cannot be passed to a program.
        """
        if invalid := [name for name in self.environment if not name or "=" in name]:
            raise Malformed(f"not a name of a variable: {invalid[0]!r}")
        strings = [
            *(() if self.sandbox is None else (request_id, *self.sandbox.fields)),
            str(self.output_bytes),
            _milliseconds(self.run_seconds),
            _milliseconds(self.grace_seconds),
            str(int(self.stop_signal)),
            self.user,
            self.directory,
            str(len(self.argv)),
            *self.argv,
            *(f"{name}={value}" for name, value in self.environment.items()),
        ]
        if any("\0" in string for string in strings):
            raise Malformed("neither a command nor a variable can contain a NUL")
        try:
            body = b"".join(s.encode(errors="surrogateescape") + b"\0" for s in strings)
        except UnicodeEncodeError as error:
            raise Malformed(
                "neither a command nor a variable can contain a lone surrogate"
            ) from error
        if len(body) > MAX_BYTES or len(strings) > MAX_STRINGS:
            raise Malformed("the command and the environment are too large")
        return body


def _milliseconds(seconds: float) -> str:
    """Return milliseconds, rounded up: a short limit must not become 0, which is no limit."""
    return str(math.ceil(seconds * 1000))
