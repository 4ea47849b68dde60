"""The schema: migrations in the order of their numbers, each once, each in one transaction.

A migration is a file ``migrations/NNNN_what.sql``; one that has been released is never changed.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from abaco_projector.adapters.read_model_store import Store
from abaco_proto.errors import Refused

FOLDER = Path(__file__).with_name("migrations")


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema."""

    number: int
    name: str
    sql: str


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All that this version of the code has, in order."""
    return [_migration(path) for path in sorted(folder.glob("[0-9]*_*.sql"))]


def _migration(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    return Migration(int(number), name, path.read_text(encoding="utf-8"))


def pending(applied: Collection[int], known: Sequence[Migration]) -> list[Migration]:
    """What is still to be done.

    Raises:
        Refused: the database has a migration we do not know, so it belongs to a later version.
    """
    newest = max((migration.number for migration in known), default=0)
    beyond = max(applied, default=0)
    if beyond > newest:
        raise Refused(
            f"the database has schema {beyond:04}, this version knows up to {newest:04}:"
            " start a newer version, or give it another database"
        )
    return [migration for migration in known if migration.number not in applied]


async def migrate(store: Store, known: Sequence[Migration] | None = None) -> None:
    """Bring the database up to date. Processes that do it at once take turns.

    Raises:
        Refused: see :func:`pending`.
        Unavailable: the database is away; nothing is half done.
    """
    async with store.migrating() as applied:
        for migration in pending(applied, migrations() if known is None else known):
            await store.migrate(migration.number, migration.name, migration.sql)
