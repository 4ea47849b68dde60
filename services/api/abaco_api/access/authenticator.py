"""Authentication: the headers of a request to its principal."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic

from abaco_api.access.access_directory import AccessDirectories
from abaco_api.access.domain import api_token
from abaco_api.access.domain.access_errors import (
    CredentialTooLarge,
    TooManyFailures,
    Unauthenticated,
)
from abaco_api.access.domain.failure_limit import FailureLimit
from abaco_api.access.domain.principal import Principal, PrincipalKind
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_proto.errors import AbacoError

MAX_CREDENTIAL = 8 * 1024
"""The longest credential, in bytes; nginx passes no longer header by default."""

SCHEME = "bearer"
NONCE_HEADER = "x-nonce"


def _now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Finds the principal of each request, by a JWT, an API token or a nonce.

    Invalid credentials are limited by address. Beyond the limit, a JWT that was not verified before
    and a token or nonce that is not folded yet are refused unread; others are accepted all the
    same.
    """

    def __init__(
        self,
        directories: AccessDirectories,
        verifier: JwtVerifier,
        failures: FailureLimit,
        *,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._directories = directories
        self._verifier = verifier
        self._failures = failures
        self._now = now
        self._clock = clock

    async def principal(
        self, authorization: Sequence[str], nonces: Sequence[str], address: str
    ) -> Principal | None:
        """The principal of a request; None if it has no credential.

        ``authorization`` and ``nonces`` are the values of the headers ``Authorization`` and
        ``x-nonce``, ``address`` is where the request comes from.

        Raises:
            Unauthenticated: the credential is not valid.
            CredentialTooLarge: it is longer than ``MAX_CREDENTIAL`` bytes.
            TooManyFailures: the address has sent too many invalid ones.
            Unavailable: it cannot be checked now.
        """
        if not authorization and not nonces:
            return None
        try:
            return await self._verified(_credential(authorization, nonces), address)
        except (Unauthenticated, CredentialTooLarge):
            now = self._clock()
            if self._failures.is_exceeded(address, now):
                raise _too_many() from None
            self._failures.failed(address, now)
            raise

    def is_valid(self, principal: Principal) -> bool:
        """Whether the credential that a principal came with is still valid."""
        if principal.expires_at is not None and principal.expires_at <= self._now():
            return False
        fold = self._directories.of(principal.tenant).fold
        match principal.kind:
            case PrincipalKind.TOKEN:
                return fold.token(principal.id) is not None
            case PrincipalKind.NONCE:
                return fold.nonce(principal.id) is not None
        return True

    async def _verified(self, text: str, address: str) -> Principal:
        await self._directories.ready()
        principal = await self._known(text)
        if principal is None:
            if self._failures.is_exceeded(address, self._clock()):
                raise _too_many()
            principal = await self._new(text)
        self._directories.check_tenant(principal.tenant)
        return principal

    async def _known(self, text: str) -> Principal | None:
        """The principal of a credential, as far as this process knows it."""
        if text.startswith(api_token.NONCE_PREFIX):
            return self._of_nonce(text)
        if text.startswith(api_token.PREFIX):
            return self._of_api_token(text)
        return await self._verifier.known(text)

    async def _new(self, text: str) -> Principal:
        """The principal of a credential that is seen here for the first time."""
        if text.startswith(api_token.NONCE_PREFIX):
            nonce_id = api_token.token_id_of(text, api_token.NONCE_PREFIX)
            assert nonce_id is not None
            await self._directories.refresh_nonce(nonce_id)
            principal = self._of_nonce(text)
        elif text.startswith(api_token.PREFIX):
            token_id = api_token.token_id_of(text)
            assert token_id is not None
            await self._directories.refresh_token(token_id)
            principal = self._of_api_token(text)
        else:
            return await self._verifier.verify(text)
        if principal is None:
            raise Unauthenticated("the credential is not known here")
        return principal

    def _of_nonce(self, text: str) -> Principal | None:
        """The principal of a nonce; None if no nonce with its id is folded."""
        nonce_id = api_token.token_id_of(text, api_token.NONCE_PREFIX)
        if nonce_id is None:
            raise Unauthenticated("the nonce is mistyped")
        is_known = False
        for tenant, nonce in self._directories.nonces(nonce_id):
            is_known = True
            if api_token.matches(text, nonce.sha256):
                return nonce.principal(tenant)
        if is_known:
            raise Unauthenticated("the nonce is not known here")
        return None

    def _of_api_token(self, text: str) -> Principal | None:
        """The principal of an API token; None if no token with its id is folded."""
        token_id = api_token.token_id_of(text)
        if token_id is None:
            raise Unauthenticated("the API token is mistyped")
        is_known = False
        for tenant, token in self._directories.tokens(token_id):
            is_known = True
            if api_token.matches(text, token.sha256):
                if token.expires_at <= self._now():
                    raise Unauthenticated("the API token has expired")
                return token.principal(tenant)
        if is_known:
            raise Unauthenticated("the API token is not known here")
        return None


def _credential(authorization: Sequence[str], nonces: Sequence[str]) -> str:
    headers = [*authorization, *nonces]
    if len(headers) > 1:
        raise Unauthenticated(f"more than one header Authorization or {NONCE_HEADER}")
    [header] = headers
    if len(header) > MAX_CREDENTIAL:
        raise CredentialTooLarge(f"a credential of more than {MAX_CREDENTIAL} bytes")
    if nonces:
        if not header.startswith(api_token.NONCE_PREFIX):
            raise Unauthenticated(f"{NONCE_HEADER}: expected a nonce, {api_token.NONCE_PREFIX}…")
        return header
    scheme, _, text = header.partition(" ")
    text = text.strip()
    if scheme.lower() != SCHEME or not text.isascii() or not text or " " in text:
        raise Unauthenticated("Authorization: expected Bearer and one credential")
    if text.startswith(api_token.NONCE_PREFIX):
        raise Unauthenticated(f"a nonce is sent in the header {NONCE_HEADER}")
    return text


def _too_many() -> AbacoError:
    return TooManyFailures("too many invalid credentials from this address: try again later")
