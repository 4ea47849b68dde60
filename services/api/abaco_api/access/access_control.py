"""Access control: the one step before every handler.

It finds the principal of a request, decides by the rule of the operation, and reports refusals as
a log line and a metric. Refusals are never events: an outsider could fill the log with them.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic

import msgspec
from starlette.requests import Request

from abaco_api.access.access_directory import AccessDirectories
from abaco_api.access.authenticator import NONCE_HEADER, Authenticator
from abaco_api.access.domain.access_errors import (
    CredentialTooLarge,
    Forbidden,
    TooManyFailures,
    Unauthenticated,
)
from abaco_api.access.domain.decide_access import (
    Decision,
    Permissions,
    decide,
    forbidden_parameter,
    level_on,
    may_read_source,
    reads_all_actors,
)
from abaco_api.access.domain.failure_limit import FailureLimit
from abaco_api.access.domain.issuers import parse_issuers
from abaco_api.access.domain.principal import Principal, at_least, local_principal
from abaco_api.access.domain.rules import Published, Rule, needs
from abaco_api.access.domain.subscriber import lasting, subscriber_of
from abaco_api.access.issuer_keys import IssuerKeys
from abaco_api.access.jwt_verifier import JwtVerifier
from abaco_api.access.key_source import key_source
from abaco_api.api_settings import ApiSettings
from abaco_api.http.parameters import checked_actor_id
from abaco_proto import names
from abaco_proto.errors import AbacoError, Malformed, Unavailable, Unknown
from abaco_proto.events import Definition, PermissionLevel

logger = logging.getLogger(__name__)

ACTOR = "actor_id"
RETRY_SECONDS = 1.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Operated(msgspec.Struct, frozen=True):
    """An operation, as access control sees it."""

    method: str
    path: str
    rule: Rule

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return self.method != "GET"


class AccessControl:
    """Who sends a request, and whether it is executed."""

    def __init__(
        self,
        settings: ApiSettings,
        directories: AccessDirectories,
        authenticator: Authenticator | None,
        refused: Callable[[str], None],
    ) -> None:
        """Without an authenticator, everybody may do everything; ``refused`` counts by reason."""
        self._directories = directories
        self._authenticator = authenticator
        self._local = local_principal(settings.tenant)
        self.everybody = self._local if authenticator is None else None
        """Who sends every request while access control is off."""
        self._max_workers = settings.max_workers
        self._proxies = trusted_proxies(settings.trusted_proxies)
        self._refused = refused

    @property
    def is_on(self) -> bool:
        """Whether requests need a credential."""
        return self._authenticator is not None

    async def admit(self, request: Request, operation: Operated) -> Principal:
        """The principal of a request that may be executed.

        Raises:
            Unauthenticated: it has no valid credential, and needs one.
            Unknown: what it is about may not be read.
            Forbidden: it may be read, but this may not be done with it.
            AbacoError: as ``Authenticator.principal``.
        """
        if self._authenticator is None or operation.rule.public:
            return self._local
        address = self._address(request)
        principal = None
        try:
            authorization = request.headers.getlist("authorization")
            nonces = request.headers.getlist(NONCE_HEADER)
            principal = await self._authenticator.principal(authorization, nonces, address)
            if principal is None:
                raise Unauthenticated("this needs a credential", invalid=False)
            await self._check(principal, operation, request.path_params.get(ACTOR))
        except AbacoError as error:
            self._report(error, operation, principal, address)
            raise
        return principal

    async def may_see(self, request: Request, published: Published) -> bool:
        """Whether the answer of a public operation may have details that a setting publishes.

        A credential that is not valid is like none: the answer itself is for everybody.
        """
        if published == "off" or self._authenticator is None:
            return published != "off"
        if published == "public":
            return True
        authorization = request.headers.getlist("authorization")
        try:
            address = self._address(request)
            principal = await self._authenticator.principal(authorization, (), address)
        except AbacoError:
            return False
        return principal is not None and principal.tenant == self._local.tenant

    async def _check(self, principal: Principal, operation: Operated, text: str | None) -> None:
        rule, level = operation.rule, PermissionLevel.NONE
        if rule.installation and principal.tenant != self._local.tenant:
            raise Forbidden(f"{principal.name} may not do this: it needs {needs(rule)}")
        actor_id = checked_actor_id(text) if text is not None else ""
        if actor_id:
            directory = self._directories.of(principal.tenant)
            level = level_on(principal, actor_id, await directory.permissions(actor_id))
            if not at_least(level, PermissionLevel.READ):
                latest = await directory.latest_permissions(actor_id)
                level = level_on(principal, actor_id, latest)
        match decide(principal, rule, writes=operation.writes, level=level):
            case Decision.NOT_FOUND:
                raise Unknown(f"actor_id: there is no actor {actor_id!r}")
            case Decision.FORBIDDEN:
                raise Forbidden(f"{principal.name} may not do this: it needs {needs(rule)}")
            case Decision.UNAUTHENTICATED:
                raise Unauthenticated("this needs a credential", invalid=False)

    def report(
        self, error: AbacoError, operation: Operated, principal: Principal, request: Request
    ) -> None:
        """Report the refusal of a request that was admitted."""
        self._report(error, operation, principal, self._address(request))

    def _report(
        self, error: AbacoError, operation: Operated, principal: Principal | None, address: str
    ) -> None:
        reason = next((name for kind, name in REASONS.items() if isinstance(error, kind)), None)
        if reason is None:
            return
        self._refused(reason)
        is_missing = isinstance(error, Unauthenticated) and not error.invalid
        if is_missing or isinstance(error, TooManyFailures):
            return  # these are not limited, so a line for each would fill the log
        logger.info(
            "refused %s %s to %s at %s: %s",
            *(operation.method, operation.path, _named(principal), address, error),
        )

    def _address(self, request: Request) -> str:
        """Where a request comes from; through a trusted proxy, the last address that it added."""
        address = request.client.host if request.client is not None else ""
        if not self._proxies or not _is_in(address, self._proxies):
            return address
        added = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        return added or address

    # -- what may be read --------------------------------------------------------------------------

    async def readable(self, principal: Principal) -> Sequence[str] | None:
        """The ids of the actors that a principal may read; None: all."""
        if not self.is_on or reads_all_actors(principal):
            return None
        if principal.actors is None:
            directory = self._directories.of(principal.tenant)
            return sorted(directory.fold.readable(principal.user))
        return [
            actor_id
            for actor_id in sorted(principal.actors)
            if await self.may_read(principal, actor_id)
        ]

    async def may_read(self, principal: Principal, source: str) -> bool:
        """Whether a principal may read the events of an actor, host or credential, as of now."""
        if not self.is_on:
            return True
        permissions: Permissions = {}
        if names.is_actor_id(source):
            permissions = await self._directories.of(principal.tenant).permissions(source)
        return may_read_source(principal, source, permissions)

    def reads_everything(self, principal: Principal) -> bool:
        """Whether a principal may read every event of its tenant, those of credentials included."""
        return not self.is_on or may_read_source(principal, names.TOKEN_ACTOR_PREFIX, {})

    def reads_all_actors(self, principal: Principal) -> bool:
        """Whether a principal may read every actor of its tenant."""
        return not self.is_on or reads_all_actors(principal)

    async def may_receive(self, tenant: str, subscriber: str | None, source: str) -> bool:
        """Whether who made a subscription may read the events of a source, as of now.

        ``subscriber`` is a principal as in the envelope of an event: None if access control was
        off, when everybody might read everything.

        Raises:
            Unavailable: as ``AccessDirectory.permissions``.
        """
        if not self.is_on or subscriber is None:
            return True
        directory = self._directories.of(tenant)
        await directory.ready()
        principal = subscriber_of(subscriber, directory.fold, tenant)
        if principal is None or not self._is_valid(principal):
            return False
        return await self.may_read(principal, source)

    async def check_subscription(self, principal: Principal, event_pattern: str) -> None:
        """Check that a principal may read all sources of a subscription, also after it logs out.

        Raises:
            Forbidden: the pattern has a wildcard in its source, and it may not read every actor.
            Unknown: it may not read the one source.
        """
        source = event_pattern.partition(".")[0]
        principal = lasting(principal)
        if self.reads_all_actors(principal):
            return
        if not names.is_actor_id(source):
            raise Forbidden(
                "event_pattern: name one actor: you may not read those of others, or not after you"
                " have logged out; an API token keeps its roles"
            )
        if not await self.may_read(principal, source):
            raise Unknown(f"event_pattern: there is no actor {source!r}")

    async def until_revoked(self, principal: Principal, actor_id: str | None) -> None:
        """Return once a principal may no longer read, because of its credential or its level."""
        directory = self._directories.of(principal.tenant)
        while True:
            reduced = directory.reduced
            if not self._is_valid(principal):
                return
            seconds = None
            if principal.expires_at is not None:
                seconds = max(0.0, (principal.expires_at - datetime.now(UTC)).total_seconds())
            try:
                if actor_id is not None and not await self.may_read(principal, actor_id):
                    return
            except Unavailable:  # no event arrives either, so nothing was revoked that is known
                seconds = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await reduced.wait()

    def _is_valid(self, principal: Principal) -> bool:
        assert self._authenticator is not None
        return self._authenticator.is_valid(principal)

    # -- what may be changed -----------------------------------------------------------------------

    def check_definition(
        self, principal: Principal, before: Definition | None, after: Definition
    ) -> None:
        """Check the privileged parameters of a new or changed definition.

        Raises:
            Forbidden: one of them needs a role.
        """
        if not self.is_on:
            return
        name = forbidden_parameter(principal, before, after, max_workers=self._max_workers)
        if name is not None:
            raise Forbidden(f"{name}: {principal.name} may not set this: docs/reference/access.md")


def _named(principal: Principal | None) -> str:
    return "nobody" if principal is None else f"{principal.name} of tenant {principal.tenant}"


REASONS: dict[type[AbacoError], str] = {
    TooManyFailures: "too_many",
    CredentialTooLarge: "too_large",
    Unauthenticated: "unauthenticated",
    Forbidden: "forbidden",
    Unknown: "not_found",
}
"""The label of each kind of refusal."""


def create_access_control(
    settings: ApiSettings, directories: AccessDirectories, refused: Callable[[str], None]
) -> AccessControl:
    """Access control as the settings say.

    Raises:
        Malformed: an issuer cannot be used.
    """
    authenticator = None
    if settings.auth == "on":
        issuers = parse_issuers(settings.auth_issuers)
        verifier = JwtVerifier((i, IssuerKeys(i, key_source(i), monotonic)) for i in issuers)
        burst = settings.auth_failures_per_minute
        failures = FailureLimit(burst=burst, per_minute=burst)
        authenticator = Authenticator(directories, verifier, failures)
    return AccessControl(settings, directories, authenticator, refused)


def check_exposure(settings: ApiSettings) -> None:
    """Check that an api without authentication is reachable from its own machine only.

    Raises:
        Malformed: it is not, and no setting says that this is wanted.
    """
    host = settings.published_host or settings.api_host
    if settings.auth == "on" or settings.auth_off_anywhere or _is_loopback(host):
        return
    raise Malformed(
        f"ABACO_AUTH is off, but the api would be reachable at {host}, not only from this machine: "
        "set ABACO_AUTH=on, or ABACO_AUTH_OFF_ANYWHERE=true to let everybody in"
    )


def trusted_proxies(text: str) -> tuple[Network, ...]:
    """The networks in the setting.

    Raises:
        Malformed: one of them is none.
    """
    try:
        return tuple(
            ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part
        )
    except ValueError as error:
        raise Malformed(f"ABACO_TRUSTED_PROXIES: {error}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
