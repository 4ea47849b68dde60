"""The keys of one issuer, kept up to date.

A set is fetched when a token needs it: if it is stale in the background, if there is none or if it
has expired before the token is verified. A token with an unknown ``kid`` fetches it too, at most
once in ``retry_seconds`` for all such tokens together. While the issuer does not answer, the last
set is used until it expires. After that, tokens cannot be verified: that is a 503, never access.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from joserfc.jwk import Key

from abaco_api.access.domain.access_errors import Unauthenticated
from abaco_api.access.domain.issuers import Issuer
from abaco_api.access.domain.key_set import Age, KeySet, Refresh, parse_key_set
from abaco_api.access.key_source import Fetch
from abaco_proto.errors import Malformed, Unavailable

logger = logging.getLogger(__name__)


class IssuerKeys:
    """The key set of an issuer. ``version`` changes when the set does."""

    def __init__(
        self, issuer: Issuer, fetch: Fetch, clock: Callable[[], float] = monotonic
    ) -> None:
        """Nothing is fetched yet."""
        self._name = issuer.issuer
        self._fetch = fetch
        self._clock = clock
        self._refresh = Refresh(
            refresh_seconds=issuer.refresh_seconds,
            max_age_seconds=issuer.max_age_seconds,
            retry_seconds=issuer.retry_seconds,
        )
        self._set = KeySet(())
        self._fetched_at: float | None = None
        self._attempted_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._is_failing = False
        self.version = 0

    async def current(self) -> KeySet:
        """The set to verify with.

        Raises:
            Unavailable: there is none, or it is too old, and the issuer does not answer.
        """
        match self._refresh.age(self._fetched_at, self._clock()):
            case Age.STALE:
                self._start_fetch()
            case Age.EXPIRED:
                await self._fetched()
                if self._refresh.age(self._fetched_at, self._clock()) is Age.EXPIRED:
                    raise Unavailable("the keys that verify tokens cannot be fetched")
        return self._set

    async def find(self, kid: str | None, algorithm: str) -> Key:
        """The key that a token names.

        Raises:
            Unauthenticated: the issuer has no such key.
            Unavailable: as of ``current``.
        """
        key = (await self.current()).find(kid, algorithm)
        if key is None:
            await self._fetched()
            key = self._set.find(kid, algorithm)
        if key is None:
            raise Unauthenticated("the token is signed with a key that its issuer does not have")
        return key

    async def renewed(self, kid: str | None, algorithm: str, key: Key) -> Key | None:
        """The key that replaces one whose signature does not fit, in a set fetched since; or None.

        Some issuers give every key the same ``kid``, or none.
        """
        await self._fetched()
        found = self._set.find(kid, algorithm)
        if found is None or found.as_dict(private=False) == key.as_dict(private=False):
            return None
        return found

    async def _fetched(self) -> None:
        """Wait for a fetch, if one runs or may begin."""
        self._start_fetch()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    def _start_fetch(self) -> None:
        now = self._clock()
        if self._fetching is None and self._refresh.may_fetch(self._attempted_at, now):
            self._attempted_at = now
            self._fetching = asyncio.create_task(self._run_fetch())

    async def _run_fetch(self) -> None:
        try:
            began = self._clock()
            found = parse_key_set(await self._fetch())
        except (Unavailable, Malformed) as error:
            if not self._is_failing:
                logger.warning(
                    "the keys of issuer %s cannot be fetched: %s; the last ones are used for at "
                    "most %.0f s, then tokens get 503: check jwks_url or jwks_file",
                    *(self._name, error, self._refresh.max_age_seconds),
                )
            self._is_failing = True
        else:
            if self._is_failing:
                logger.info("the keys of issuer %s are fetched again", self._name)
            self._is_failing = False
            if _described(found) != _described(self._set):
                self.version += 1
            self._set, self._fetched_at = found, began
        finally:
            self._fetching = None


def _described(keys: KeySet) -> list[object]:
    return [key.as_dict(private=False) for key in keys.keys]
