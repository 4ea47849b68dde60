"""The idempotency keys of recent events, per history.

Theory: the events of a request with a key carry it, and the append of an event has a condition on
its history: that nothing was appended behind the event with sequence ``head``. The index of that
history holds the keys of all its events up to ``head`` before anything is decided. So either the
key is found, and nothing is appended, or every event that the index lacks is behind ``head``, and
the append fails. Whoever loses such a race reads on and finds the key.

Keys are read from the headers of the last ``seconds`` of a history when it is first needed, then
kept up to date by this process's own appends, and by reading on where another process appended.
"""

import asyncio
import logging
from collections import OrderedDict
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import islice

from abaco_api.api_errors import KeyReused
from abaco_api.idempotency.idempotency_key import AlreadyExecuted, IdempotencyKey, key_of_event
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

EXPIRE_EVERY = 64
"""After this many new keys of a history, its oldest ones are checked for expiry."""

MAX_KEYS = 200_000
"""Keys in memory, about 50 MB. Beyond that the least recently used histories are dropped."""


class _Window:
    """The keys of one history, all up to the sequence ``covered`` unless it is ``incomplete``."""

    __slots__ = ("covered", "incomplete", "keys", "loaded", "loading")

    def __init__(self) -> None:
        self.covered = 0
        self.keys: dict[str, tuple[int, datetime]] = {}
        self.loaded = False
        self.incomplete = False
        self.loading: asyncio.Task[None] | None = None


class KeyIndex:
    """The index over all histories of a tenant. A history is named by its subject filter."""

    def __init__(self, log: EventLog, seconds: int, max_keys: int = MAX_KEYS) -> None:
        """Empty: nothing is read before a request with a key needs it."""
        self._log = log
        self._age = timedelta(seconds=seconds)
        self._max_keys = max_keys
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self.count = 0

    async def prepare(self, history: str) -> _Window:
        """Load the keys of a history, if they are not loaded.

        A long history may take longer than the caller's timeout. The load continues after it, so a
        repeated request succeeds.
        """
        window = self._windows.get(history)
        if window is None:
            window = self._windows[history] = _Window()
            while len(self._windows) > self._max_keys:
                self._drop()
        self._windows.move_to_end(history)
        if not window.loaded:
            if window.loading is None or window.loading.done():
                window.loading = asyncio.create_task(self._read(history, window, 0))
                _loading.add(window.loading)
                window.loading.add_done_callback(_loaded)
            await asyncio.shield(window.loading)
        return window

    async def check(self, history: str, head: int, key: IdempotencyKey) -> None:
        """Check that a request was not executed before, by the events up to ``head``.

        Raises:
            AlreadyExecuted: it was.
            KeyReused: another request was, with the same key.
            Unavailable: the log did not answer.
        """
        window = self._windows.get(history) or await self.prepare(history)
        if not window.loaded or window.covered < head:
            await self._read(history, window, head)
        found = window.keys.get(key.scope)
        if found is None or found[1] < datetime.now(UTC) - self._age:
            return
        recorded = await self._log.at(found[0])
        before = key_of_event(recorded.causation_id) if recorded is not None else None
        if recorded is None or before is None:
            raise Unavailable(f"Idempotency-Key: event {found[0]} cannot be read")
        if before.digest != key.digest:
            raise KeyReused("Idempotency-Key: was sent with another request before")
        raise AlreadyExecuted(recorded)

    def appended(
        self, history: str, head: int, recorded: Recorded, key: IdempotencyKey | None
    ) -> None:
        """Index an event that this process appended behind ``head`` for a request with a key."""
        window = self._windows.get(history)
        if window is not None and window.loaded and window.covered >= head:
            self._index(history, window, recorded, key)

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self, history: str, window: _Window, head: int) -> None:
        """Index the keys behind ``covered``, up to ``head`` or the present end of the history."""
        since = None if window.loaded else datetime.now(UTC) - self._age
        batches = self._log.read([history], after=window.covered, since=since, headers_only=True)
        async with aclosing(batches):
            async for batch in batches:
                for recorded in batch:
                    key = key_of_event(recorded.causation_id)
                    self._index(history, window, recorded, key)
        window.covered = max(window.covered, head)
        window.loaded = True

    def _index(
        self, history: str, window: _Window, recorded: Recorded, key: IdempotencyKey | None
    ) -> None:
        window.covered = max(window.covered, recorded.sequence)
        if key is None:
            return
        known = window.keys.pop(key.scope, None) is not None
        window.keys[key.scope] = recorded.sequence, recorded.time
        if self._windows.get(history) is not window:
            return  # dropped while it is read: complete for the check that reads it, then freed
        self.count += not known
        if len(window.keys) % EXPIRE_EVERY == 0:
            self._expire(window)
        while self.count > self._max_keys:
            self._drop()

    # -- the bound -------------------------------------------------------------------------------

    def _expire(self, window: _Window) -> None:
        """Drop the oldest keys that have expired, a few at a time."""
        limit = datetime.now(UTC) - self._age
        for scope in list(islice(window.keys, 2 * EXPIRE_EVERY)):
            if window.keys[scope][1] >= limit:
                return
            del window.keys[scope]
            self.count -= 1

    def _drop(self) -> None:
        """Drop the least recently used history; of a single history, its oldest key."""
        if len(self._windows) > 1:
            _, window = self._windows.popitem(last=False)
            self.count -= len(window.keys)
            window.loaded = False
            return
        [(history, window)] = self._windows.items()
        oldest = next(iter(window.keys))
        del window.keys[oldest]
        self.count -= 1
        if window.incomplete:
            return
        window.incomplete = True
        logger.warning(
            "more than %d idempotency keys within %s in %s: the oldest are forgotten, and a"
            " request that repeats one is executed again; lower ABACO_IDEMPOTENCY_SECONDS",
            self._max_keys,
            self._age,
            history,
        )


_loading: set["asyncio.Task[None]"] = set()
"""The event loop itself keeps no reference to its tasks."""


def _loaded(task: "asyncio.Task[None]") -> None:
    """Retrieve the error of a load that no request waits for, so that asyncio does not log it."""
    _loading.discard(task)
    if not task.cancelled():
        task.exception()
