"""Schema migrations: applied in the order of their numbers, each once and in its own transaction.

A migration is a file ``migrations/NNNN_what.sql``. A released file is never changed.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from abaco_projector.adapters.read_model_store import ReadModelStore
from abaco_proto.errors import Refused

FOLDER = Path(__file__).with_name("migrations")


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema."""

    number: int
    name: str
    sql: str


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """Return all migrations of this version of the code, in order."""
    return [_migration(path) for path in sorted(folder.glob("[0-9]*_*.sql"))]


def _migration(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    return Migration(int(number), name, path.read_text(encoding="utf-8"))


def pending(applied: Collection[int], known: Sequence[Migration]) -> list[Migration]:
    """Return the migrations that are not applied yet.

    Raises:
        Refused: the database has a migration that is unknown here: a later version made it.
    """
    newest = max((migration.number for migration in known), default=0)
    beyond = max(applied, default=0)
    if beyond > newest:
        raise Refused(
            f"the database has schema {beyond:04}, this version knows up to {newest:04}:"
            " start a newer version, or set ABACO_POSTGRES_DSN to another database"
        )
    return [migration for migration in known if migration.number not in applied]


async def migrate(store: ReadModelStore, known: Sequence[Migration] | None = None) -> None:
    """Apply all pending migrations. Processes that do so at the same time wait for one another.

    Raises:
        Refused: see :func:`pending`.
        Unavailable: the database is unavailable; the migration in progress is rolled back.
    """
    async with store.migration_lock() as applied:
        for migration in pending(applied, migrations() if known is None else known):
            await store.migrate(migration.number, migration.name, migration.sql)
