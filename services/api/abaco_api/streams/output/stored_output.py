"""Stored output of one attempt as text, a part at a time, however long it is."""

from collections.abc import AsyncGenerator

from abaco_api.queries.read_models import ReadModels
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Transcript

CHUNKS = 16
"""So many chunks are read at once; a worker makes them of at most 16 KiB."""


async def stored_text(
    models: ReadModels, execution_id: str, attempt: int
) -> AsyncGenerator[str, None]:
    """The texts whose join is the output; there is at least one, which may be empty."""
    transcript, found = Transcript(OutputOffset(1)), CHUNKS
    while found == CHUNKS:
        rows = await models.output_from(execution_id, attempt, transcript.end, CHUNKS)
        found = len(rows)
        pieces = [
            piece
            for row in rows
            for piece in transcript.add(1, row["output_offset"], bytes(row["data"]))
        ]
        if found < CHUNKS:
            pieces += transcript.finish()
        yield "".join(piece.text for piece in pieces)
