"""The portable file: the whole log, and the output, as gzip'd lines of JSON, sealed at the end.

====================  ============================================================================
line                  holds
====================  ============================================================================
the first             ``kind`` "header", ``format`` 1, ``stream``
one an event          ``kind`` "event", ``seq`` from 1 without gaps, ``subject``, ``headers``, and
                      the body: ``text`` when it is UTF-8, or else ``base64``
one a chunk           ``kind`` "output": ``tenant``, ``execution_id``, ``attempt``,
                      ``output_offset``, ``base64``
the last              ``kind`` "end": how many ``events`` and ``chunks``, the chain's ``hash``
                      at the last event, and ``sha256`` of all lines before this one
====================  ============================================================================

Whatever is missing, added or changed is found: by the seal, and for the events by the chain, which
needs nothing that is in the file only.
"""

import gzip
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from abaco_projector.domain.hash_chain import START, link
from abaco_projector.domain.output_chunks import Chunk
from abaco_proto import streams
from abaco_proto.codec import UNREADABLE
from abaco_proto.envelope import from_message
from abaco_proto.errors import Refused

FORMAT = 1
LEVEL = 4
"""Of gzip: beyond, it takes twice the time for a few per cent."""


class Header(msgspec.Struct, frozen=True, tag_field="kind", tag="header"):
    """What the file is."""

    format: int = FORMAT
    stream: str = streams.EVENTS.name


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="event"):
    """A message of the log, as it is stored."""

    seq: int
    subject: str
    headers: dict[str, str]
    text: str = ""
    base64: bytes = b""

    @property
    def body(self) -> bytes:
        """The bytes."""
        return self.base64 or self.text.encode()


class Output(msgspec.Struct, frozen=True, tag_field="kind", tag="output"):
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


class End(msgspec.Struct, frozen=True, tag_field="kind", tag="end"):
    """The seal."""

    events: int
    chunks: int
    hash: str
    sha256: str


Line: TypeAlias = Header | Event | Output | End

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode

DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, *UNREADABLE)


def event(seq: int, subject: str, headers: dict[str, str], body: bytes) -> Event:
    """The line of a message."""
    try:
        return Event(seq, subject, headers, text=body.decode())
    except UnicodeDecodeError:
        return Event(seq, subject, headers, base64=body)


class Seal:
    """What the lines so far come to: the same when they are written and when they are read."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.events = self.chunks = 0
        self.hash = START
        self._digest = sha256()

    def take(self, line: Line, raw: bytes) -> None:
        """Take in one more line.

        Raises:
            Refused: an event is not the next one.
        """
        self._digest.update(raw)
        if isinstance(line, Output):
            self.chunks += 1
        if isinstance(line, Event):
            if line.seq != self.events + 1:
                raise Refused(f"event {self.events + 1} is missing")
            recorded = from_message(line.seq, line.subject, line.headers, line.body)
            self.hash = link(self.hash, recorded)
            self.events = line.seq

    def end(self) -> End:
        """The last line."""
        return End(self.events, self.chunks, self.hash.hex(), self._digest.hexdigest())


class Writer:
    """Writes lines, and the seal behind them."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to an open file, and leave it open."""
        # Without name and time: the same history is the same file.
        self._zip = gzip.GzipFile("", "wb", compresslevel=LEVEL, fileobj=file, mtime=0)
        self.seal = Seal()
        self.write(Header())

    def write(self, line: Line) -> None:
        """Write one line. Raises as :meth:`Seal.take`."""
        raw = _encode(line) + b"\n"
        self.seal.take(line, raw)
        self._zip.write(raw)

    def close(self) -> End:
        """Write the seal; without it the file is not complete."""
        end = self.seal.end()
        self._zip.write(_encode(end) + b"\n")
        self._zip.close()
        return end


def lines(file: BinaryIO, name: str | Path) -> Iterator[Event | Output | End]:
    """What is in an open file, the seal last.

    Raises:
        Refused: it is not such a file, it is damaged, or its end is missing.
    """
    seal, number = Seal(), 0
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            for number, raw in enumerate(unzipped, 1):
                line = _decode(raw)
                _check_place(line, number)
                if isinstance(line, End):
                    _check_end(line, seal, rest=unzipped.read(1))
                    yield line
                    return
                seal.take(line, raw)
                if not isinstance(line, Header):
                    yield line
    except DAMAGE as error:
        raise Refused(f"{name} is damaged behind line {number}: {error}") from None
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    raise Refused(f"{name} is cut off behind line {number}: its end is missing")


def _check_place(line: Line, number: int) -> None:
    if isinstance(line, Header) != (number == 1):
        raise Refused(f"line {number} is not in its place")
    if isinstance(line, Header) and line != Header():
        raise Refused(f"format {line.format} of {line.stream} is not known here")


def _check_end(end: End, seal: Seal, rest: bytes) -> None:
    if end != seal.end() or rest:
        raise Refused("it is damaged: it does not hold what its end says")
