"""What a launcher is asked to run, and its form on the wire (``request.c`` reads it)."""

import math
import signal
from collections.abc import Mapping, Sequence

import msgspec

from abaco_proto.errors import Malformed

MOST_BYTES = 2 * 1024 * 1024
MOST_STRINGS = 16_384


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is to run: the image's words, and where they run.

    ``user`` is as in ``USER`` of a Dockerfile. Of the environment, PATH, HOSTNAME and HOME are
    added where they are missing. ``run_seconds`` of 0 is no limit; ``grace_seconds`` lie between
    ``stop_signal`` and SIGKILL, when the limit or a halt ends the run. Text becomes bytes as UTF-8,
    with surrogates for bytes that are none (``surrogateescape``).
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str = ""
    user: str = ""
    output_bytes: int
    run_seconds: float = 0
    grace_seconds: float = 10
    stop_signal: int = signal.SIGTERM

    def encode(self) -> bytes:
        """The body of the request.

        Raises:
            Malformed: it cannot be passed to any program.
        """
        if wrong := [name for name in self.environment if not name or "=" in name]:
            raise Malformed(f"no name of a variable: {wrong[0]!r}")
        strings = [
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
            raise Malformed("neither a word of a command nor a variable can hold a NUL")
        try:
            body = b"".join(s.encode(errors="surrogateescape") + b"\0" for s in strings)
        except UnicodeEncodeError as error:
            raise Malformed("text that is no Unicode can be no word nor variable") from error
        if len(body) > MOST_BYTES or len(strings) > MOST_STRINGS:
            raise Malformed("the command and the environment are too large")
        return body


def _milliseconds(seconds: float) -> str:
    """Rounded up: a limit, however short, is one."""
    return str(math.ceil(seconds * 1000))
