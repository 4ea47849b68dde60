"""Transcripts: chunks of output to text, whatever the borders they come in.

A chunk that comes twice with other borders is there once, bytes that never came leave a mark, and
so does a new attempt, whose output begins anew. A character that two chunks share is there when
its last byte is; what is not UTF-8 becomes replacement characters.
"""

import codecs

import msgspec

from abaco_api.streams.domain.output_offset import Place

_Decoder = codecs.getincrementaldecoder("utf-8")


class Piece(msgspec.Struct, frozen=True):
    """Text, and the place behind it: who has read it goes on there."""

    text: str
    place: Place


class Transcript:
    """What a reader has got of the output so far."""

    def __init__(self, begin: Place) -> None:
        """Nothing yet; the first text will be that at ``begin``."""
        self._attempt = begin.attempt
        self._end = begin.offset
        self._spoke = begin.offset > 0
        self._decoder = _Decoder("replace")

    @property
    def attempt(self) -> int:
        """The latest attempt that there was output of."""
        return self._attempt

    @property
    def end(self) -> int:
        """How many bytes of that attempt have come, those of half a character included."""
        return self._end

    def misses(self, attempt: int, offset: int) -> bool:
        """Whether bytes before this place have not come."""
        come = self._end if attempt == self._attempt else 0
        return attempt >= self._attempt and offset > come

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
        """The text of half a character that will never be whole."""
        return self._piece(self._decoder.decode(b"", final=True))

    def _begin(self, attempt: int) -> list[Piece]:
        pieces = self.finish()
        self._attempt, self._end = attempt, 0
        return [
            *pieces,
            *self._piece(f"\n[attempt {attempt} begins here]\n" if self._spoke else ""),
        ]

    def _piece(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._spoke = True
        half = len(self._decoder.getstate()[0])
        return [Piece(text, Place(self._attempt, self._end - half))]
