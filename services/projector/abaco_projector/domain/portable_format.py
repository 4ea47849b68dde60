"""The portable file: the whole log and the output, as gzipped lines of JSON with checksums.

====================  ============================================================================
line                  content
====================  ============================================================================
the first             ``kind`` "header", ``format``, ``stream``
one per event         ``kind`` "event", ``seq`` from 1 without gaps, ``subject``, ``headers``, and
                      the body: ``text`` if it is UTF-8, otherwise ``base64``
one per chunk         ``kind`` "output": ``tenant``, ``execution_id``, ``attempt``,
                      ``output_offset``, ``base64``
the last              ``kind`` "end": the numbers of ``events`` and ``chunks``, the chain's
                      ``hash`` at the last event, and ``sha256`` of all lines before this one
====================  ============================================================================

``format`` is 2. It was 1 before events had a principal, which the chain covers. Both are read; a
version that knows only 1 refuses the file.

Any missing, added or changed line is detected: by the checksums, and for events also by the chain,
which an auditor may have noted elsewhere.
"""

import gzip
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from abaco_projector.domain.hash_chain import GENESIS_HASH, next_hash
from abaco_projector.domain.output_chunks import Chunk
from abaco_proto import streams
from abaco_proto.envelope import DECODE_ERRORS, from_message
from abaco_proto.errors import Refused

FORMAT = 2
READABLE_FORMATS = (1, 2)
GZIP_LEVEL = 4
"""A higher level takes twice the time for a few per cent."""


class HeaderLine(msgspec.Struct, frozen=True, tag_field="kind", tag="header"):
    """The format of the file."""

    format: int = FORMAT
    stream: str = streams.EVENTS.name


class EventLine(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="event"):
    """A message of the log, as it is stored."""

    seq: int
    subject: str
    headers: dict[str, str]
    text: str = ""
    base64: bytes = b""

    @property
    def body(self) -> bytes:
        """The body in bytes."""
        return self.base64 or self.text.encode()


class OutputLine(msgspec.Struct, frozen=True, tag_field="kind", tag="output"):
    """A row of the table ``logs``."""

    tenant: str
    execution_id: str
    attempt: int
    output_offset: int
    base64: bytes

    @property
    def chunk(self) -> Chunk:
        """The row."""
        return Chunk(self.tenant, self.execution_id, self.attempt, self.output_offset, self.base64)


class EndLine(msgspec.Struct, frozen=True, tag_field="kind", tag="end"):
    """The checksums of the file."""

    events: int
    chunks: int
    hash: str
    sha256: str


FileLine: TypeAlias = HeaderLine | EventLine | OutputLine | EndLine

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FileLine).decode

DAMAGE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, *DECODE_ERRORS)


def event_line(seq: int, subject: str, headers: dict[str, str], body: bytes) -> EventLine:
    """Return the line of a message."""
    try:
        return EventLine(seq, subject, headers, text=body.decode())
    except UnicodeDecodeError:
        return EventLine(seq, subject, headers, base64=body)


class Checksums:
    """The checksums of the lines so far; computed by the writer and by the reader."""

    def __init__(self) -> None:
        """Start before the first line."""
        self.events = self.chunks = 0
        self.hash = GENESIS_HASH
        self._digest = sha256()

    def add(self, line: FileLine, raw: bytes) -> None:
        """Add a line.

        Raises:
            Refused: an event has not the next sequence.
        """
        self._digest.update(raw)
        if isinstance(line, OutputLine):
            self.chunks += 1
        if isinstance(line, EventLine):
            if line.seq != self.events + 1:
                raise Refused(f"event {self.events + 1} is missing")
            recorded = from_message(line.seq, line.subject, line.headers, line.body)
            self.hash = next_hash(self.hash, recorded)
            self.events = line.seq

    def end_line(self) -> EndLine:
        """Return the last line."""
        return EndLine(self.events, self.chunks, self.hash.hex(), self._digest.hexdigest())


class PortableFileWriter:
    """Writes lines, and the checksums at the end."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to an open file, which stays open."""
        # Without name and time: the same log makes the same file.
        self._zip = gzip.GzipFile("", "wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0)
        self.checksums = Checksums()
        self.write(HeaderLine())

    def write(self, line: FileLine) -> None:
        """Write one line. Raises as :meth:`Checksums.add`."""
        raw = _encode(line) + b"\n"
        self.checksums.add(line, raw)
        self._zip.write(raw)

    def close(self) -> EndLine:
        """Write the last line; without it the file is not complete."""
        end_line = self.checksums.end_line()
        self._zip.write(_encode(end_line) + b"\n")
        self._zip.close()
        return end_line


def read_lines(file: BinaryIO, name: str | Path) -> Iterator[EventLine | OutputLine | EndLine]:
    """Yield the lines of an open file; the last is an ``EndLine``.

    Raises:
        Refused: the file has another format, is damaged, or is cut off.
    """
    checksums, number = Checksums(), 0
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            for number, raw in enumerate(unzipped, 1):
                line = _decode(raw)
                _check_position(line, number)
                if isinstance(line, EndLine):
                    _check_end(line, checksums, rest=unzipped.read(1))
                    yield line
                    return
                checksums.add(line, raw)
                if not isinstance(line, HeaderLine):
                    yield line
    except DAMAGE_ERRORS as error:
        raise Refused(f"{name} is damaged after line {number}: {error}") from None
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    raise Refused(f"{name} is cut off after line {number}: its end is missing")


def _check_position(line: FileLine, number: int) -> None:
    if isinstance(line, HeaderLine) != (number == 1):
        raise Refused(f"line {number} is not in its place")
    if isinstance(line, HeaderLine) and (
        line.format not in READABLE_FORMATS or line.stream != streams.EVENTS.name
    ):
        raise Refused(f"format {line.format} of {line.stream} is not known here")


def _check_end(end_line: EndLine, checksums: Checksums, rest: bytes) -> None:
    if end_line != checksums.end_line() or rest:
        raise Refused("it is damaged: it does not hold what its end says")
