"""Something behind nginx that notes what it is asked, and answers oddly where it is asked to.

It runs in a container by itself: ``python fake_api.py``.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from pathlib import Path

NOTES = Path("/tmp/notes")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

released = asyncio.Event()


async def serve(reader: StreamReader, writer: StreamWriter) -> None:
    """One connection: as many requests as come."""
    while line := await reader.readline():
        _, target, _ = line.decode().split()
        length = 0
        while header := (await reader.readline()).strip().lower():
            if header.startswith(b"content-length:"):
                length = int(header.partition(b":")[2])
        await reader.readexactly(length)
        note(target)
        match target.rpartition("/")[2].partition("?")[0]:
            case "hang-up":
                break
            case "release":
                released.set()
            case "stream":
                released.clear()
                writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                await released.wait()
                writer.write(b"4\r\nlast\r\n0\r\n\r\n")
                continue
        writer.write(HEAD + b"Content-Length: 2\r\n\r\nok")
    writer.close()


def note(line: str) -> None:
    """In a file: a container's log arrives later than the answer."""
    with NOTES.open("a") as notes:
        notes.write(f"{line}\n")


async def main() -> None:
    """Listen for ever."""
    server = await asyncio.start_server(serve, "0.0.0.0", 8000)
    note("listening")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
