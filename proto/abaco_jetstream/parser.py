"""nats-py's parser, with one thing done faster: messages with headers that are there as a whole.

The library looks for each of its operations by a pattern, and takes what it has read out of its
buffer piece by piece; most of what a follower of the log gets is of one kind. What is of another
kind, or too long to have come at once, is left to the library.
"""

from typing import Any

from nats.protocol.parser import AWAITING_CONTROL_LINE, HMSG_RE, Parser

OPERATION, LINE_END = b"HMSG ", b"\r\n"
MOST_BYTES = 1 << 16
"""What is cut off is kept for the next time, up to here: it is copied each time."""


class QuickParser(Parser):
    """Reads the same as its parent."""

    nc: Any

    async def parse(self, data: bytes = b"") -> None:
        """Take in some more bytes, and pass on each message that they complete."""
        if self.state == AWAITING_CONTROL_LINE and len(self.buf) <= MOST_BYTES:
            data = bytes(self.buf) + data
            self.buf.clear()
            data = data[await self._whole(data) :]
            if len(data) <= MOST_BYTES and HMSG_RE.match(data):  # the rest of it comes later
                self.buf.extend(data)
                return
        await super().parse(data)

    async def _whole(self, data: bytes) -> int:
        """Pass on the messages at the beginning of ``data``; how many bytes these were."""
        at = 0
        while data.startswith(OPERATION, at):
            line_end = data.find(LINE_END, at)
            words = data[at + len(OPERATION) : line_end].split() if line_end > 0 else []
            if len(words) not in {4, 5} or not (words[-1].isdigit() and words[-2].isdigit()):
                break
            head = line_end + len(LINE_END)
            body, end = head + int(words[-2]), head + int(words[-1])
            if len(data) < end + len(LINE_END):
                break
            at = end + len(LINE_END)
            reply = words[2] if len(words) == 5 else b""
            await self.nc._process_msg(  # noqa: SLF001 - as the parent does
                int(words[1]), words[0], reply, data[body:end], data[head:body]
            )
        return at
