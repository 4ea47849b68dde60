"""The configuration of the streams; :mod:`abaco_jetstream` creates them."""

import msgspec

MEBIBYTE = 1024 * 1024
DAY_SECONDS = 24 * 60 * 60


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's configuration. Zero means no limit."""

    name: str
    subjects: tuple[str, ...]
    description: str
    append_only: bool
    max_age_seconds: int = 0
    max_bytes: int = 0
    max_per_subject: int = 0
    duplicate_window_seconds: int = 120


EVENTS = Stream(
    name="ABACO_EVENTS",
    subjects=("abaco.event.>",),
    description="The log: every state change, append-only.",
    append_only=True,
)

LOGS = Stream(
    name="ABACO_LOGS",
    subjects=("abaco.log.>",),
    description="Container output in chunks, as it appears.",
    append_only=False,
    max_age_seconds=7 * DAY_SECONDS,
    max_bytes=4096 * MEBIBYTE,
)

SNAPSHOTS = Stream(
    name="KV_ABACO_SNAPSHOTS",
    subjects=("$KV.ABACO_SNAPSHOTS.>",),
    description="What folds of the log have come to; may be thrown away at any time.",
    append_only=False,
    max_per_subject=1,
)
"""Named like a key-value bucket, so that the tools of NATS show it as one."""

ALL = (EVENTS, LOGS, SNAPSHOTS)
