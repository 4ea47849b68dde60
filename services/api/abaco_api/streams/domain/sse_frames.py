"""Frames of a ``text/event-stream``, as the HTML standard has it ("Server-sent events").

The one encoder of all streams: of events, and of followed output. A frame ends with an empty line,
and data of several lines is sent line by line. So every kind of line end in a text becomes the
same one: CR LF, LF and CR are each one LF, wherever the text was divided.
"""

import re

import msgspec

from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Piece

CR = "\r"
DATA, END = b"\ndata: ", b"\n\n"
RETRY = b"retry: 1000\n\n"
"""A client that is disconnected connects again after so many milliseconds."""

_LINE_END = re.compile("\r\n|\r|\n")

_encode = msgspec.json.Encoder().encode


class OutputFrames:
    """The pieces of one output as frames, whose data joins to its text.

    A CR at the end of a piece is held back until the next piece, which may begin with its LF. Until
    then the offset to resume from is before it.
    """

    def __init__(self) -> None:
        self._held: Piece | None = None
        self._end: OutputOffset | None = None
        self.resume_after: str | None = None

    def frame(self, piece: Piece) -> bytes:
        """The frame of one more piece; empty when all of it is held back."""
        text = piece.text if self._held is None else self._held.text + piece.text
        self._held = None
        if not text.endswith(CR):
            return self._framed(Piece(text, piece.end))
        self._held = Piece(CR, piece.end)
        before = OutputOffset(piece.end.attempt, max(piece.end.offset - len(CR), 0))
        return self._framed(Piece(text[: -len(CR)], before)) if text != CR else b""

    def finish(self) -> bytes:
        """The frame of what is held back, at the end of the output."""
        held, self._held = self._held, None
        return b"" if held is None else self._framed(held)

    def written(self) -> None:
        """Note that the last frame is sent: a reader resumes after it."""
        if self._end is not None:
            self.resume_after = str(self._end)

    def _framed(self, piece: Piece) -> bytes:
        self._end = piece.end
        return output(piece)


def frame(data: bytes, *, event: str, id: str | None = None) -> bytes:  # noqa: A002
    """A frame with data of one line; without ``id`` the client keeps the last one."""
    head = b"" if id is None else b"id: %s\n" % id.encode()
    return b"%sevent: %s%s%s%s" % (head, event.encode(), DATA, data, END)


def comment(text: str, *, id: str | None = None) -> bytes:  # noqa: A002
    """A comment, which no client shows. The ``id`` moves the offset that a client resumes from."""
    tail = b"" if id is None else b"id: %s\n" % id.encode()
    return b": %s\n%s\n" % (text.encode(), tail)


def data_in(frame: bytes) -> bytes:
    """The data of a frame that :func:`frame` made."""
    return frame[frame.index(DATA) + len(DATA) : -len(END)]


def output(piece: Piece) -> bytes:
    """A piece of output; its id is the offset to resume from."""
    lines = _LINE_END.split(piece.text)
    return frame("\ndata: ".join(lines).encode(), event="output", id=str(piece.end))


def end(result: msgspec.Struct) -> bytes:
    """The last frame: the execution as it ended."""
    return frame(_encode(result), event="end")


def dropped(
    reason: str,
    resume_after: str | int | None,
    *,
    id: str | None = None,  # noqa: A002
) -> bytes:
    """The last frame to a client that is disconnected: why, and what to resume after."""
    data = {"reason": reason, "resume_after": resume_after}
    return frame(_encode(data), event="dropped", id=id)
