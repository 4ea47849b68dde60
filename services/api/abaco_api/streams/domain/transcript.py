"""Transcripts: chunks of output to text, however the chunks are divided.

Bytes that arrive twice are in the text once. Missing bytes leave a mark, and so does a new attempt,
whose output begins at 0. A character that is divided between chunks is complete with its last
byte; bytes that are not UTF-8 become replacement characters.
"""

import codecs

import msgspec

from abaco_api.streams.domain.output_offset import OutputOffset

_Decoder = codecs.getincrementaldecoder("utf-8")


class Piece(msgspec.Struct, frozen=True):
    """Text, and the offset after it: a reader resumes there."""

    text: str
    end: OutputOffset


class Transcript:
    """The output that a reader has received so far."""

    def __init__(self, begin: OutputOffset) -> None:
        """Nothing yet; the first text is that at ``begin``."""
        self._attempt = begin.attempt
        self._end = begin.offset
        self._has_text = begin.offset > 0
        self._decoder = _Decoder("replace")

    @property
    def attempt(self) -> int:
        """The latest attempt that has output."""
        return self._attempt

    @property
    def end(self) -> int:
        """The bytes received of that attempt, those of an incomplete character included."""
        return self._end

    def misses(self, attempt: int, offset: int) -> bool:
        """Whether bytes before this offset are missing."""
        received = self._end if attempt == self._attempt else 0
        return attempt >= self._attempt and offset > received

    def add(self, attempt: int, offset: int, data: bytes) -> list[Piece]:
        """The text that a chunk adds."""
        pieces: list[Piece] = []
        if attempt < self._attempt:
            return pieces
        if attempt > self._attempt:
            pieces += self._begin(attempt)
        if offset > self._end:
            pieces += self.finish()
            mark = f"\n[{offset - self._end} bytes are missing here]\n"
            self._end = offset
            pieces += self._piece(mark)
        fresh = data[self._end - offset :]
        self._end += len(fresh)
        return [*pieces, *self._piece(self._decoder.decode(fresh))]

    def finish(self) -> list[Piece]:
        """The text of a character that stays incomplete."""
        return self._piece(self._decoder.decode(b"", final=True))

    def _begin(self, attempt: int) -> list[Piece]:
        pieces = self.finish()
        self._attempt, self._end = attempt, 0
        return [
            *pieces,
            *self._piece(f"\n[attempt {attempt} begins here]\n" if self._has_text else ""),
        ]

    def _piece(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._has_text = True
        half = len(self._decoder.getstate()[0])
        return [Piece(text, OutputOffset(self._attempt, self._end - half))]
