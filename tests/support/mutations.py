"""A mutator: from bytes that are right to bytes that are nearly right, by a seed.

What random bytes find is found in a second; what finds more is damage to what was right: a byte
flipped, a piece cut out, doubled or taken from elsewhere, a number or a time at the edge of what
anybody can hold.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SECONDS = float(os.environ.get("ABACO_TEST_FUZZ_SECONDS", "0"))
"""How long each fuzzer runs; 0: the few seconds that fit into every run of the tests."""

SEED = int(os.environ.get("ABACO_TEST_FUZZ_SEED", "1"))

HANG_SECONDS = 5
"""No reader may take this long for a few kilobytes."""

EDGES = (
    b"0", b"-1", b"1e400", b"1e-400", b"-0.0", b"NaN", b"9007199254740993", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551616", b"1" * 5000, b"null", b"true", b"{}", b"[]",
    b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udfff\\ud800"', b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
    b"\xc3\xa9", b"\xef\xbf\xbd", b"[" * 3000, b'{"a":' * 2000, b"\\", b'"', b"\r\n", b"\n\n",
    b"0001-01-01T00:00:00+14:00", b"9999-12-31T23:59:59.999999Z", b"9999-12-31T23:59:59-23:59",
    b"1969-12-31T23:59:59Z", b"2026-02-30T00:00:00Z", b"2026-01-02", b"20260102T030405Z", b".",
    b"*", b">", b" ", b"%00", b"%ff", b"%", b"&", b"=", b"+", b"../", b"foo_0", b"foo_00",
    b"_host-h1", b"type", b"moon.landed", b"execution.finished", b"message.received",
)  # fmt: skip


class Mutator:
    """Endless variations on samples; equal seeds give equal variations."""

    def __init__(self, seed: int, samples: Sequence[bytes]) -> None:
        self._chance = random.Random(seed)
        self._samples = list(samples)

    def next(self) -> bytes:
        """One more variation; now and then nothing but chance."""
        if self._chance.random() < 0.05:
            return self._chance.randbytes(self._chance.randrange(64))
        raw = self._chance.choice(self._samples)
        for _ in range(self._chance.choice((1, 1, 1, 2, 3, 6))):
            raw = self._chance.choice(self._ways)(self, raw)
        return raw

    def text(self, samples: Sequence[str]) -> str:
        """The same of texts, as a decoder of headers or paths gives them."""
        raw = self.next() if not samples else self._chance.choice(samples).encode()
        if self._chance.random() < 0.5:
            raw = self._chance.choice(self._ways)(self, raw)
        return raw.decode("utf-8", "replace")

    def pick(self, count: int) -> int:
        """A number below ``count``."""
        return self._chance.randrange(count)

    # -- the ways

    def _piece(self, raw: bytes) -> tuple[int, int]:
        start = self._chance.randrange(len(raw) + 1)
        return start, min(len(raw), start + int(self._chance.expovariate(0.15)) + 1)

    def _flip(self, raw: bytes) -> bytes:
        if not raw:
            return b"\x80"
        at, bit = self._chance.randrange(len(raw)), 1 << self._chance.randrange(8)
        return raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]

    def _cut(self, raw: bytes) -> bytes:
        start, end = self._piece(raw)
        return raw[:start] + raw[end:]

    def _double(self, raw: bytes) -> bytes:
        start, end = self._piece(raw)
        return raw[:end] + raw[start:end] * self._chance.choice((1, 1, 2, 50)) + raw[end:]

    def _edge(self, raw: bytes) -> bytes:
        start, end = self._piece(raw)
        return raw[:start] + self._chance.choice(EDGES) + raw[end:]

    def _value(self, raw: bytes) -> bytes:
        """A whole JSON value, as far as a comma or a brace can tell, for another."""
        start = raw.find(b":", self._chance.randrange(len(raw) + 1)) + 1
        ends = [at for at in (raw.find(b",", start), raw.find(b"}", start)) if at >= 0]
        return raw[:start] + self._chance.choice(EDGES) + raw[min(ends, default=len(raw)) :]

    def _splice(self, raw: bytes) -> bytes:
        other = self._chance.choice(self._samples)
        start, end = self._piece(raw)
        begin, stop = self._piece(other)
        return raw[:start] + other[begin:stop] + raw[end:]

    def _truncate(self, raw: bytes) -> bytes:
        return raw[: self._chance.randrange(len(raw) + 1)]

    def _whole(self, _: bytes) -> bytes:
        return self._chance.choice(EDGES)

    _ways: tuple[Callable[["Mutator", bytes], bytes], ...] = (
        _flip, _cut, _double, _edge, _edge, _value, _value, _splice, _truncate, _whole,
    )  # fmt: skip


class Hang(Exception):
    """A reader took too long."""


@contextmanager
def alarm(seconds: int = HANG_SECONDS) -> Iterator[None]:
    """End what takes more processor time, wherever it is; a machine that is busy takes no part."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def rounds(seconds: float) -> Iterator[int]:
    """0, 1, 2, … until the time is up, and one at least."""
    deadline, number = time.monotonic() + seconds, 0
    while number == 0 or time.monotonic() < deadline:
        yield number
        number += 1
