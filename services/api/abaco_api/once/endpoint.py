"""The endpoints of operations that heed the header ``Idempotency-Key``.

It is the header of the IETF's draft-ietf-httpapi-idempotency-key-header; whatever is in it, quotes
included, is the key. A second request that comes while the first is under way waits for its answer.
What never began (400, 413, 415, 429) or may not be over (503) is not kept; everything else is.
"""

import asyncio
import hashlib
import json
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from abaco_api import parse
from abaco_api.body import read_parameters
from abaco_api.envelope import MEDIA_TYPE, SEQUENCE, failure_of
from abaco_api.errors import BadParameter
from abaco_api.freshness import ALL_ACTORS
from abaco_api.once.attempt import AlreadyDone, Attempt, attempting
from abaco_api.once.claim import Answer, token
from abaco_api.once.keys import Held
from abaco_api.operation import KEY, MAX_KEY, Endpoint, Once, Operation
from abaco_api.service import Service, service
from abaco_proto.errors import AbacoError, Conflict, Refused, Unavailable, Unknown
from abaco_proto.subjects import type_filter

LOOK_SECONDS = 5.0
"""How long one request may look for what came of an earlier one; the next goes on from there."""


def heeding_keys(operation: Operation) -> Endpoint:
    """The endpoint of an operation; with a key in the request it leads to one event at most."""
    if operation.once is None:
        return operation.endpoint
    once = operation.once

    async def endpoint(request: Request) -> Response:
        keys = request.headers.getlist(KEY)
        if not keys:
            return await operation.endpoint(request)
        answer = await _answer(operation, once, request, _checked(keys))
        _remember_written(service(request), answer)
        return _response(answer)

    return endpoint


def _checked(keys: list[str]) -> str:
    if len(keys) > 1:
        raise BadParameter(KEY, "is there more than once")
    [key] = keys
    if not 1 <= len(key) <= MAX_KEY or not all(" " <= c <= "~" for c in key):
        raise BadParameter(KEY, f"expected 1 to {MAX_KEY} printable ASCII characters")
    return key


async def _answer(operation: Operation, once: Once, request: Request, key: str) -> Answer:
    api = service(request)
    actor_id = request.path_params.get("actor_id")
    subject_token = "*" if actor_id is None else parse.actor_id(actor_id)
    led_to = type_filter(api.config.tenant, subject_token, once.event)
    digest = await _digest(operation, request)
    held = await api.keys.claim(token(api.config.tenant, key), digest)
    if isinstance(held, Answer):
        return held
    return await _Try(api, operation, request, held, led_to).answer()


async def _digest(operation: Operation, request: Request) -> str:
    """The digest of what a request says."""
    said: object = None
    if operation.body is not None:
        parameters = await read_parameters(request, service(request).config.max_body_bytes)
        said = [parameters.form, _said(parameters.values)]
    query = request.scope["query_string"].decode("latin-1")
    text = json.dumps([request.method, request.scope["path"], query, said], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """The values, those of JSON by their texts without white space between."""
    return {
        name: bytes(msgspec.json.format(value, indent=-1)).decode()
        if isinstance(value, msgspec.Raw)
        else value
        for name, value in values.items()
    }


class _Try:
    """One request with a key that nothing is known to have come of."""

    def __init__(
        self, api: Service, operation: Operation, request: Request, held: Held, led_to: str
    ) -> None:
        self._api = api
        self._operation = operation
        self._request = request
        self._held = held
        self._attempt = Attempt(
            log=api.log,
            filter=led_to,
            cause=held.claim.cause,
            after=held.claim.after,
            alone_until=held.alone_until,
        )

    async def answer(self) -> Answer:
        """The answer that all get; an error that others need not get is raised."""
        found = None if self._held.own else await self._found()
        if found is not None:
            return found
        try:
            response = await self._carried_out()
        except AlreadyDone:
            return await self._from_event()
        except (Unknown, Refused) as error:
            kept = await self._kept_without_event(failure_of(error))
            if kept is None:
                raise
            return kept
        if self._attempt.recorded is not None:
            return await self._kept(response)
        return await self._kept_without_event(response) or await self._kept(response)

    async def _carried_out(self) -> Response:
        """Do it. Where that failed its maker says of the key what others may do with it."""
        try:
            with attempting(self._attempt):
                return await self._operation.endpoint(self._request)
        except (Unavailable, Conflict):
            if self._held.own:  # it may be in the log, or get there yet
                await self._api.keys.open(self._held, self._held.claim.after)
            raise
        except (Unknown, Refused):
            raise
        except AbacoError:
            if self._held.own:  # nothing began
                await self._api.keys.set_free(self._held)
            raise

    async def _kept_without_event(self, response: Response) -> Answer | None:
        """Keep what no event stands behind, if nobody else can have come further meanwhile."""
        if self._held.own:
            answer = self._made(response)
            kept = await self._remember(answer, certain=False)
            if kept is not None:
                return kept
        return await self._found()

    async def _found(self) -> Answer | None:
        """What came of the request already, looked for in the log."""
        attempt = self._attempt
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if await attempt.look() is None:
                    return None
        except asyncio.TimeoutError:
            if not self._held.own:
                await self._api.keys.open(self._held, attempt.after)
            raise Unavailable(f"{KEY}: what came of it is still being looked for") from None
        return await self._from_event()

    async def _from_event(self) -> Answer:
        recorded = self._attempt.recorded
        assert recorded is not None
        assert self._operation.once is not None
        return await self._kept(await self._operation.once.answer(self._request, recorded))

    async def _kept(self, response: Response) -> Answer:
        kept = await self._remember(self._made(response), certain=True)
        assert kept is not None
        return kept

    async def _remember(self, answer: Answer, *, certain: bool) -> Answer | None:
        """Without the bucket the answer is given all the same: its event tells it again."""
        try:
            return await self._api.keys.remember(self._held, answer, certain=certain)
        except Unavailable:
            return answer

    def _made(self, response: Response) -> Answer:
        recorded = self._attempt.recorded
        written = recorded.event if recorded is not None else None
        sequence = response.headers.get(SEQUENCE)
        return Answer(
            status=response.status_code,
            sequence=int(sequence) if sequence is not None else None,
            actor_id=getattr(written, "actor_id", self._request.path_params.get("actor_id", "")),
            body=msgspec.Raw(bytes(response.body)),
        )


def _response(answer: Answer) -> Response:
    headers = {} if answer.sequence is None else {SEQUENCE: str(answer.sequence)}
    return Response(bytes(answer.body), answer.status, headers, MEDIA_TYPE)


def _remember_written(api: Service, answer: Answer) -> None:
    """What another process has written is shown by this one from now on, too."""
    if answer.sequence is not None:
        api.freshness.wrote(answer.sequence, answer.actor_id, ALL_ACTORS)
