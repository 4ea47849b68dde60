"""Frames of a ``text/event-stream``, as the HTML standard has it ("Server-sent events").

A frame ends with an empty line and its data is told line by line, so every kind of line end in
the text becomes the same one: CR LF, LF and CR are each one LF, wherever the text was cut.
"""

import re

import msgspec

from abaco_api.streams.domain.output_offset import Place
from abaco_api.streams.domain.transcript import Piece

CR = "\r"
HEARTBEAT = b": nothing new\n\n"
_LINE_END = re.compile("\r\n|\r|\n")

_encode = msgspec.json.Encoder().encode


class Output:
    """The pieces of one output as frames, whose data joins to its text.

    A CR at the end of a piece waits for what follows, which may be its LF. Until then the place to
    go on from is before it.
    """

    def __init__(self) -> None:
        self._held: Piece | None = None
        self._place: Place | None = None
        self.resume_after: str | None = None

    def frame(self, piece: Piece) -> bytes:
        """The frame of one more piece; empty when all of it waits."""
        text = piece.text if self._held is None else self._held.text + piece.text
        self._held = None
        if not text.endswith(CR):
            return self._framed(Piece(text, piece.place))
        self._held = Piece(CR, piece.place)
        before = Place(piece.place.attempt, max(piece.place.offset - len(CR), 0))
        return self._framed(Piece(text[: -len(CR)], before)) if text != CR else b""

    def finish(self) -> bytes:
        """The frame of what still waits, at the end of the output."""
        held, self._held = self._held, None
        return b"" if held is None else self._framed(held)

    def written(self) -> None:
        """Note that the last frame is sent: a reader goes on behind it."""
        if self._place is not None:
            self.resume_after = str(self._place)

    def _framed(self, piece: Piece) -> bytes:
        self._place = piece.place
        return output(piece)


def output(piece: Piece) -> bytes:
    """A piece of output; its id is the place to go on from."""
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(piece.text))
    return f"id: {piece.place}\nevent: output\n{data}\n".encode()


def end(result: msgspec.Struct) -> bytes:
    """The last word: the execution as it ended."""
    return b"event: end\ndata: " + _encode(result) + b"\n\n"


def dropped(reason: str, resume_after: str | None) -> bytes:
    """The last word to a reader that is disconnected: why, and the place to go on from."""
    word = {"reason": reason, "resume_after": resume_after}
    return b"event: dropped\ndata: " + _encode(word) + b"\n\n"
