"""Idempotency: a request with a key is executed once, however often it is sent.

**The key of a request** is in the ``Abaco-Causation`` header of the event that the request has led
to: ``idem-<scope>-<digest>-<attempt>``. The scope is the tenant, the method, the path and the key
of the client. The digest is of the query and the parameters. Both are SHA-256, cut to 128 bits, so
the log holds no key in clear. The attempt is random: it distinguishes two processes that execute
the same request at the same time.

**The index** holds the keys of recent events, per history. Theory: the append of an event has a
condition on its history: that nothing was appended after the event with sequence ``head``. The
index of that history holds the keys of all its events up to ``head`` before anything is decided. So
either the key is found, and nothing is appended, or every event that the index lacks is after
``head``, and the append fails. The loser of such a race reads on and finds the key.

Keys are read from the headers of the last ``seconds`` of a history when it is first needed, then
kept up to date by this process's own appends, and by reading on where another process appended.
"""

import asyncio
import hashlib
import logging
import re
from array import array
from bisect import bisect_left
from collections import OrderedDict, deque
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from abaco_api.api_errors import KeyReused
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

PREFIX = "idem-"
_HEX_DIGITS = 32
_encoder = msgspec.json.Encoder(order="sorted")
_DIGEST = rf"[0-9a-f]{{{_HEX_DIGITS}}}"
_CAUSATION_ID = re.compile(rf"{PREFIX}({_DIGEST})-({_DIGEST})-[0-9a-f]{{1,16}}")

MAX_BYTES = 64 * 1024 * 1024
"""The memory of an index: a million keys of up to 10,000 histories. Beyond that the least recently
used histories are dropped."""

KEY_BYTES = 28
SLICE_BYTES = 600
HISTORY_BYTES = 1000
"""What a key, a slice and a history take in memory, rounded up."""

SLICE_KEYS = 16_384
"""The most keys of a slice. More make adding a key slower, fewer make finding one slower."""

SLICES = 4
"""The window of time is cut into about so many slices; keys are forgotten a slice at a time."""

# -- the key of a request --------------------------------------------------------------------------


class AlreadyExecuted(Exception):
    """A request with this key was executed before; ``recorded`` is the event it led to."""

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(recorded.id)
        self.recorded = recorded


class IdempotencyKey(msgspec.Struct, frozen=True):
    """The key of one request: its scope, and the digest of its parameters."""

    scope: str
    digest: str

    def causation_id(self, attempt: str) -> str:
        """The causation id of the events of an attempt to execute the request."""
        return f"{PREFIX}{self.scope}-{self.digest}-{attempt}"


def idempotency_key(  # noqa: PLR0913 - all that a key depends on
    key: str,
    *,
    tenant: str,
    user: str = "",
    method: str,
    path: str,
    query: str,
    parameters: Any,
) -> IdempotencyKey:
    """The idempotency key made from a client's key and its request.

    Two users may use the same key without knowing of each other; ``user`` is empty if nobody is
    logged in.
    """
    whose = f"{tenant}\n{user}" if user else tenant
    scope = f"{whose}\n{method} {path}\n{key}".encode()
    return IdempotencyKey(
        scope=hashlib.sha256(scope).hexdigest()[:_HEX_DIGITS],
        digest=hashlib.sha256(_encoder.encode([query, parameters])).hexdigest()[:_HEX_DIGITS],
    )


def key_of_event(causation_id: str) -> IdempotencyKey | None:
    """The key of the request that led to an event; None for an event without one."""
    found = _CAUSATION_ID.fullmatch(causation_id)
    return None if found is None else IdempotencyKey(found[1], found[2])


# -- the index -------------------------------------------------------------------------------------


class _Slice:
    """Keys of consecutive events of a history: sorted scopes, in two halves, and sequences."""

    __slots__ = ("began", "high", "low", "newest", "sequences")

    def __init__(self, began: datetime) -> None:
        self.began = self.newest = began
        self.high, self.low, self.sequences = array("Q"), array("Q"), array("Q")


class _Window:
    """The keys of one history, all up to the sequence ``covered`` unless it is ``incomplete``."""

    __slots__ = ("age", "bytes", "covered", "incomplete", "loaded", "loading", "slices")

    def __init__(self, age: timedelta) -> None:
        self.age = age
        self.bytes = HISTORY_BYTES
        self.covered = 0
        self.slices: deque[_Slice] = deque()
        self.loaded = False
        self.incomplete = False
        self.loading: asyncio.Task[None] | None = None

    def find(self, scope: str) -> int | None:
        """The sequence of the last event with a key of this scope."""
        high, low = int(scope[:16], 16), int(scope[16:], 16)
        for part in reversed(self.slices):
            at = bisect_left(part.high, high)
            while at < len(part.high) and part.high[at] == high:
                if part.low[at] == low:
                    return part.sequences[at]
                at += 1
        return None

    def add(self, recorded: Recorded, key: IdempotencyKey | None) -> int:
        """Index the next event of the history; how many bytes more, or less, the keys take."""
        self.covered = recorded.sequence
        if key is None:
            return 0
        before = self.bytes
        last = self.slices[-1] if self.slices else None
        if (
            last is None
            or len(last.sequences) >= SLICE_KEYS
            or recorded.time - last.began > self.age / SLICES
        ):
            while self.slices and self.slices[0].newest < datetime.now(UTC) - self.age:
                self.forget()
            last = _Slice(recorded.time)
            self.slices.append(last)
            self.bytes += SLICE_BYTES
        high = int(key.scope[:16], 16)
        at = bisect_left(last.high, high)  # before an equal one: the last event is found first
        last.high.insert(at, high)
        last.low.insert(at, int(key.scope[16:], 16))
        last.sequences.insert(at, recorded.sequence)
        last.newest = max(last.newest, recorded.time)
        self.bytes += KEY_BYTES
        return self.bytes - before

    def forget(self) -> None:
        """Drop the oldest slice."""
        self.bytes -= SLICE_BYTES + KEY_BYTES * len(self.slices.popleft().sequences)


class KeyIndex:
    """The index over all histories of all tenants. A history is named by its subject filter."""

    def __init__(self, log: EventLog, seconds: float, max_bytes: int = MAX_BYTES) -> None:
        """Empty: nothing is read before a request with a key needs it."""
        self._log = log
        self._age = timedelta(seconds=seconds)
        self._max_bytes = max_bytes
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self.bytes = 0

    @property
    def count(self) -> int:
        """The number of keys."""
        windows = self._windows.values()
        return sum(len(part.sequences) for window in windows for part in window.slices)

    async def prepare(self, history: str) -> _Window:
        """Load the keys of a history, if they are not loaded.

        A long history may take longer than the caller's timeout. The load continues after it, so a
        repeated request succeeds.
        """
        window = self._windows.get(history)
        if window is None:
            window = self._windows[history] = _Window(self._age)
            self.bytes += window.bytes
        self._windows.move_to_end(history)
        while self.bytes > self._max_bytes:
            self._drop()
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
        sequence = window.find(key.scope)
        if sequence is None:
            return
        recorded = await self._log.at(sequence)
        before = key_of_event(recorded.causation_id) if recorded is not None else None
        if recorded is None or before is None:
            raise Unavailable(f"Idempotency-Key: event {sequence} cannot be read")
        if recorded.time < datetime.now(UTC) - self._age:
            return
        if before.digest != key.digest:
            raise KeyReused("Idempotency-Key: was sent with another request before")
        raise AlreadyExecuted(recorded)

    def add(self, history: str, head: int, recorded: Recorded, key: IdempotencyKey | None) -> None:
        """Index the event that was appended after ``head``, if all up to ``head`` are indexed."""
        window = self._windows.get(history)
        if window is not None and window.loaded and head <= window.covered < recorded.sequence:
            self.bytes += window.add(recorded, key)

    # -- reading ---------------------------------------------------------------------------------

    async def _read(self, history: str, window: _Window, head: int) -> None:
        """Index the keys after ``covered``, up to ``head`` or the present end of the history."""
        since = None if window.loaded else datetime.now(UTC) - self._age
        batches = self._log.read([history], after=window.covered, since=since, headers_only=True)
        async with aclosing(batches):
            async for batch in batches:
                more = 0
                for recorded in batch:
                    if recorded.sequence > window.covered:
                        more += window.add(recorded, key_of_event(recorded.causation_id))
                if self._windows.get(history) is window:
                    self.bytes += more
                    while self.bytes > self._max_bytes:
                        self._drop()
                # else it was dropped: it is complete for the check that reads it, then freed
        window.covered = max(window.covered, head)
        window.loaded = True

    # -- the bound -------------------------------------------------------------------------------

    def _drop(self) -> None:
        """Drop the least recently used history; of a single history, its oldest keys."""
        if len(self._windows) > 1:
            _, window = self._windows.popitem(last=False)
            self.bytes -= window.bytes
            window.loaded = False
            return
        [(history, window)] = self._windows.items()
        self.bytes -= window.bytes
        window.forget()
        self.bytes += window.bytes
        if window.incomplete:
            return
        window.incomplete = True
        logger.warning(
            "more than %d bytes of idempotency keys within %s in %s: the oldest are forgotten, and"
            " a request that repeats one is executed again; lower ABACO_IDEMPOTENCY_SECONDS",
            self._max_bytes,
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
