"""Frames of a ``text/event-stream``, as the HTML standard has it ("Server-sent events").

A frame ends with an empty line and its data is told line by line, so every kind of line end in
the text becomes the same one.
"""

import re

import msgspec

from abaco_api.live.transcript import Piece

HEARTBEAT = b": nothing new\n\n"
_LINE_END = re.compile("\r\n|\r|\n")

_encode = msgspec.json.Encoder().encode


def output(piece: Piece) -> bytes:
    """A piece of output; its id is the place to go on from."""
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(piece.text))
    return f"id: {piece.place}\nevent: output\n{data}\n".encode()


def end(result: msgspec.Struct) -> bytes:
    """The last word: the execution as it ended."""
    return b"event: end\ndata: " + _encode(result) + b"\n\n"
