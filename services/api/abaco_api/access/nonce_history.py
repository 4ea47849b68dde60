"""The history of one nonce, of which only the last event is read: it has the number of uses."""

from collections import OrderedDict

from abaco_api.access.access_directory import AccessDirectory
from abaco_api.access.domain.nonce_requests import NonceUses, uses_after
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Expected, Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import nonce_filter

MAX_CACHED = 10_000
"""Nonces whose uses are cached."""


class NonceUsesCache:
    """How often nonces were used: read from the log, and cached."""

    def __init__(self, log: EventLog, tenant: str) -> None:
        self._log = log
        self._tenant = tenant
        self._cached: OrderedDict[str, NonceUses] = OrderedDict()

    def filter(self, nonce_id: str) -> str:
        """The events of a nonce."""
        return nonce_filter(self._tenant, nonce_id)

    async def load(self, nonce_id: str) -> NonceUses:
        """The uses as far as they are cached."""
        return self._cached.get(nonce_id) or await self.reload(nonce_id)

    async def reload(self, nonce_id: str) -> NonceUses:
        """The uses as they are in the log now.

        Raises:
            Unavailable: the log does not answer, or the last event cannot be decoded.
        """
        last = await self._log.last(self.filter(nonce_id))
        if last is None or isinstance(last.event, ev.Unrecognized):
            raise Unavailable(f"the uses of the nonce {nonce_id} cannot be read")
        return self.cache(nonce_id, uses_after(last))

    def cache(self, nonce_id: str, uses: NonceUses) -> NonceUses:
        """Cache the uses of a nonce, and return them."""
        self._cached[nonce_id] = uses
        self._cached.move_to_end(nonce_id)
        if len(self._cached) > MAX_CACHED:
            self._cached.popitem(last=False)
        return uses


class NonceHistory:
    """The events of one nonce."""

    def __init__(self, uses: NonceUsesCache, access: AccessDirectory, nonce_id: str) -> None:
        self._uses = uses
        self._access = access
        self._nonce_id = nonce_id
        self.queue_key = f"nonce {nonce_id}"
        self.key_filter = uses.filter(nonce_id)

    async def load(self) -> NonceUses:
        """See ``History``."""
        return await self._uses.load(self._nonce_id)

    async def reload(self, _: NonceUses) -> NonceUses:
        """See ``History``."""
        return await self._uses.reload(self._nonce_id)

    async def head(self, state: NonceUses) -> int:
        """See ``History``."""
        return state.head

    def expected(self, state: NonceUses, _: ev.Event) -> Expected:
        """See ``History``."""
        return Expected(filter=self.key_filter, sequence=state.head)

    def evolve(self, _: NonceUses, recorded: Recorded) -> NonceUses:
        """See ``History``."""
        self._access.apply(recorded)
        return self._uses.cache(self._nonce_id, uses_after(recorded))
