"""Makes the first administrator's API token: ``python -m abaco_api.admin_token``.

A person who can append to the log as the api is an administrator already, so it needs no credential
but the address of NATS, as the api has it. It prints the token, which is shown nowhere else.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from abaco_api.access.domain import api_token
from abaco_api.access.domain.principal import Principal, PrincipalKind, Role
from abaco_api.access.domain.token_requests import DEFAULT_DAYS, TokenRequest, decide_create
from abaco_api.api_errors import BadParameter
from abaco_api.api_settings import ApiSettings
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import settings
from abaco_proto.envelope import Expected, draft, principal_text
from abaco_proto.errors import AbacoError, Malformed, Unavailable
from abaco_proto.events import TokenCreated
from abaco_proto.names import is_tenant, type_filter

USAGE, FAILED = 2, 1
CONNECT_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a token, and print it. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = settings.read(ApiSettings, os.environ)
        request = TokenRequest(
            name=options.name, owner=options.owner, roles=[Role.ADMIN], days=options.days
        )
        tenant = options.tenant or config.tenant
        sys.stdout.write(asyncio.run(create(config, request, tenant)) + "\n")
    except AbacoError as error:
        sys.stderr.write(f"abaco admin token: {error}\n")
        return USAGE if isinstance(error, Malformed) else FAILED
    return 0


async def create(config: ApiSettings, request: TokenRequest, tenant: str) -> str:
    """Append a token of a tenant to the log, and return its text.

    Raises:
        BadParameter: the request, or the name of the tenant, cannot be used.
        Conflict: another token was made at the same time.
        Unavailable: NATS does not answer.
    """
    if not is_tenant(tenant):
        raise BadParameter("tenant", "expected 1 to 63 letters, digits, hyphens or underscores")
    token = api_token.generate(token_bytes(api_token.RANDOM_BYTES))
    creator = Principal(
        kind=PrincipalKind.SERVICE,
        id="admin-token",
        user="",
        tenant=tenant,
        roles=frozenset({Role.ADMIN}),
    )
    now = datetime.now(UTC)
    event = decide_create(creator, request, token, (), now)
    drafted = draft(
        event,
        tenant=tenant,
        time=now,
        causation_id="admin-token",
        principal=principal_text(creator.kind, creator.id),
    )
    connection = Connection(
        config.nats_url,
        name="abaco-admin",
        timeout=config.append_timeout_seconds,
        replicas=config.nats_replicas,
    )
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.open()
        log = JetStreamEventLog(connection)
        creations = type_filter(tenant, "*", TokenCreated)
        last = await log.last(creations)
        expected = Expected(filter=creations, sequence=0 if last is None else last.sequence)
        await log.append(drafted, expected=expected)
    except TimeoutError:
        raise Unavailable("the log (NATS) does not answer") from None
    finally:
        await connection.close()
    return token.text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="abaco admin token", description="Make an API token with the role admin."
    )
    parser.add_argument("--owner", default="admin", help="the user it acts for (default: admin)")
    parser.add_argument("--tenant", help="its tenant (default: ABACO_TENANT)")
    parser.add_argument("--name", default="first administrator", help="what it is for")
    parser.add_argument(
        "--days",
        type=float,
        default=DEFAULT_DAYS,
        help=f"after how many days it expires (default: {DEFAULT_DAYS})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
