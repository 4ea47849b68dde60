"""Keys: who carries out the request with a key, and what came of it, as the bucket has it."""

import asyncio
import logging
from contextlib import suppress
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from abaco_api.errors import KeyReused
from abaco_api.once.claim import Answer, Claim, State, decode, encode
from abaco_proto.bucket import Bucket
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.log import EventLog
from abaco_proto.subjects import all_events_filter

logger = logging.getLogger(__name__)

OWN_SECONDS = 2.0
"""How long a claim is its maker's alone. What a request usually takes is a hundredth of that."""

HEAD_SECONDS = 1.0
"""How old the known head of the log may be that a claim is given."""

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.2


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that lets its holder carry the request out; alone, until then."""

    token: str
    claim: Claim
    revision: int
    alone_until: float

    @property
    def own(self) -> bool:
        """Whether the claim was made by its holder."""
        return self.claim.state is State.OWNED


class Keys:
    """The keys of one tenant, kept for ``seconds`` after they were last heard of."""

    def __init__(
        self, bucket: Bucket, log: EventLog, seconds: int, own_seconds: float = OWN_SECONDS
    ) -> None:
        self._bucket = bucket
        self._log = log
        self._seconds = seconds
        self._own_seconds = own_seconds
        self._head = 0
        self._head_known_at = float("-inf")

    async def claim(self, token: str, request: str) -> Held | Answer:
        """The right to carry out a request, or what came of it before.

        Raises:
            KeyReused: the key was sent with another request.
            Unavailable: no answer in time.
        """
        while True:
            with suppress(Conflict):
                return await self._make(token, request, revision=0)
            with suppress(Conflict):
                found = await self._join(token, request)
                if found is not None:
                    return found

    async def remember(self, held: Held, answer: Answer, *, certain: bool) -> Answer | None:
        """Keep an answer, and return the one that is kept: the first.

        One that is not ``certain`` to hold for all is kept only while nobody else could have come
        to another; None when somebody could.
        """
        revision = held.revision
        claim = replace(held.claim, state=State.ANSWERED, answer=answer)
        while True:
            try:
                await self._put(held.token, claim, revision)
            except Conflict:
                cell = await self._bucket.get(held.token)
                now = decode(cell.value) if cell is not None else None
                if cell is None or now is None or now.cause != claim.cause:
                    return answer if certain else None
                if now.answer is not None:
                    return now.answer
                if not certain:
                    return None
                revision = cell.revision
            else:
                return answer

    async def open(self, held: Held, after: int) -> None:
        """Let others carry it out without delay; they need not look before ``after``."""
        claim = replace(held.claim, state=State.OPEN, after=after)
        with suppress(Conflict, Unavailable):
            await self._put(held.token, claim, held.revision)

    async def set_free(self, held: Held) -> None:
        """Give the key back: nothing came of it, and whoever made the claim says so."""
        claim = replace(held.claim, state=State.FREE)
        with suppress(Conflict, Unavailable):
            await self._put(held.token, claim, held.revision)

    # -- claiming --------------------------------------------------------------------------------

    async def _make(self, token: str, request: str, revision: int) -> Held:
        """Claim a key that nobody uses. The time it is ours begins before anybody can see it."""
        after, alone_until = await self._known_head(), _now() + self._own_seconds
        cause = f"idem-{token[:16]}-{uuid4()}"
        claim = Claim(request=request, cause=cause, after=after)
        revision = await self._put(token, claim, revision)
        return Held(token=token, claim=claim, revision=revision, alone_until=alone_until)

    async def _join(self, token: str, request: str) -> Held | Answer | None:
        """Come to a key that is in use: wait for its answer, then open it; None when it went."""
        waited: dict[int, float] = {}
        pause = FIRST_PAUSE_SECONDS
        while (cell := await self._bucket.get(token)) is not None:
            claim = decode(cell.value)
            if claim.state is State.FREE:
                return await self._make(token, request, cell.revision)
            if claim.request != request:
                raise KeyReused("Idempotency-Key: was sent with another request before")
            if claim.answer is not None:
                return claim.answer
            since = waited.setdefault(cell.revision, _now())
            if claim.state is State.OPEN or _now() - since >= self._own_seconds:
                return await self._opened(token, claim, cell.revision)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return None

    async def _opened(self, token: str, claim: Claim, revision: int) -> Held:
        if claim.state is not State.OPEN:
            claim = replace(claim, state=State.OPEN)
            revision = await self._put(token, claim, revision)
        return Held(token=token, claim=claim, revision=revision, alone_until=float("-inf"))

    async def _put(self, token: str, claim: Claim, revision: int) -> int:
        return await self._bucket.put(
            token, encode(claim), revision=revision, seconds=self._seconds
        )

    async def _known_head(self) -> int:
        """A sequence that the log has reached, seldom far from its end."""
        if _now() - self._head_known_at >= HEAD_SECONDS:
            asked_at = _now()
            last = await self._log.last(all_events_filter())
            self._head = max(self._head, last.sequence if last is not None else 0)
            self._head_known_at = asked_at
        return self._head


def _now() -> float:
    return asyncio.get_running_loop().time()
