"""The load: the plan's steps as requests over HTTP, and an honest account of their answers.

A client that gets no answer asks again, as clients do. Half of the messages have an
``Idempotency-Key``: however often such a one is sent, it may be in the log once. Of the others
each try has a token of its own, so that the log can say of each whether it was accepted.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from msgspec.structs import replace

from fault.mixer.plan import LISTENED, LISTENER, ROLES, Plan, Step, What
from fault.mixer.reckoning import TOKEN, Answer, Sent

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
TRIES = 4
KEYED_TRIES = 60
PAUSE_SECONDS = 0.5
REQUEST_SECONDS = 15


class Load:
    """The actors of a plan, and what was sent to them."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet; ``url`` is the API's."""
        self._client = httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS)
        self._tokens = itertools.count()
        self.actors: dict[str, str] = {}
        self.sent: list[Sent] = []
        self.last: dict[str, str] = {}
        """The last execution that each actor's sender was told of."""

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()

    async def begin(self) -> None:
        """Register all actors, before anything is killed, and send each a first message."""
        for role in ROLES:
            await self._register(role)
        self.actors[LISTENER] = await self._new(LISTENER, {"image": ROLES[LISTENED].image})
        wanted = {"event_pattern": f"{self.actors[LISTENED]}.execution.finished"}
        path = f"/actors/{self.actors[LISTENER]}/subscriptions"
        assert (await self._ask("POST", path, json=wanted)) is not None
        for role in ROLES:
            await self._send(role, {"message": "1"})

    async def run(self, plan: Plan) -> None:
        """Take the steps of all roles side by side, those of one role in their order."""
        steps: dict[str, list[Step]] = defaultdict(list)
        for step in plan.load:
            steps[step.role].append(step)
        clock = asyncio.get_running_loop().time
        began = clock()

        async def act(mine: list[Step]) -> None:
            for step in mine:
                await asyncio.sleep(max(0.0, began + step.at - clock()))
                if clock() < began + plan.seconds:  # what is late is left out
                    await self._take(step)

        await asyncio.gather(*map(act, steps.values()))

    async def _take(self, step: Step) -> None:
        actor = f"/actors/{self.actors[step.role]}"
        match step.what:
            case What.SEND:
                await self._send(step.role, step.body)
            case What.HALT if step.role in self.last:
                await self._ask("DELETE", f"{actor}/executions/{self.last[step.role]}")
            case What.PURGE:
                await self._ask("DELETE", f"{actor}/messages")
            case What.UPDATE:
                await self._ask("PUT", actor, json=step.body)
            case What.SET_STATE:
                await self._ask("POST", f"{actor}/state", json=step.body)
            case What.REPLACE:
                await self._ask("DELETE", actor)
                await self._register(step.role)

    async def _register(self, role: str) -> None:
        chosen = ROLES[role]
        wanted = {"image": chosen.image, "min_workers": 1, **chosen.more}
        if role in self.actors:
            try:
                self.actors[role] = await self._new(role, wanted)
            except AssertionError:
                return  # the old one is gone, and what is sent to it is refused
        else:
            self.actors[role] = await self._new(role, wanted)

    async def _new(self, name: str, wanted: dict[str, Any]) -> str:
        answer = await self._ask("POST", "/actors", json={"name": f"mixer-{name}", **wanted})
        assert answer is not None
        return str(answer["id"])

    async def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any] | None:
        """Ask until there is an answer, a few times at most; None without a good one."""
        for _ in range(TRIES):
            try:
                answer = await self._client.request(method, path, **how)
            except httpx.TransportError:
                pass
            else:
                assert answer.status_code not in (500, 501), answer.text
                if answer.status_code != 503:
                    return (answer.json()["result"] or {}) if answer.is_success else None
            await asyncio.sleep(PAUSE_SECONDS)
        return None

    async def _send(self, role: str, body: dict[str, Any]) -> None:
        number = next(self._tokens)
        if number % 2:
            tries = [await self._send_keyed(role, body, str(number))]
        else:
            tries = [sent async for sent in self._send_again(role, body, str(number))]
        self.sent += tries
        if tries[-1].answer is Answer.ACCEPTED:
            self.last[role] = tries[-1].execution_id

    async def _send_keyed(self, role: str, body: dict[str, Any], token: str) -> Sent:
        """The same request, until there is an answer. Was one of them sent, it may be there."""
        perhaps = False
        for _ in range(KEYED_TRIES):
            sent = await self._try(role, body, token, key=f"mixer-{token}")
            if sent.answer is Answer.ACCEPTED:
                return sent
            perhaps |= sent.answer is Answer.NONE
            if sent.final:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return _with(sent, Answer.NONE) if perhaps else sent

    async def _send_again(
        self, role: str, body: dict[str, Any], token: str
    ) -> AsyncGenerator[Sent, None]:
        """A new request at each try."""
        for attempt in range(TRIES):
            sent = await self._try(role, body, f"{token}.{attempt}")
            yield sent
            if sent.answer is Answer.ACCEPTED or sent.final:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _try(self, role: str, body: dict[str, Any], token: str, key: str = "") -> Sent:
        path = f"/actors/{self.actors[role]}/messages"
        headers = {"Idempotency-Key": key} if key else {}
        sent = Sent(token=token, message=body["message"], answer=Answer.NONE)
        try:
            answer = await self._client.post(
                path, json=body, params={TOKEN: token}, headers=headers
            )
        except NOT_SENT:
            return _with(sent, Answer.REFUSED)
        except httpx.TransportError:
            return sent
        assert answer.status_code not in (500, 501), answer.text
        if answer.is_success:
            return _with(sent, Answer.ACCEPTED, answer.json()["result"]["execution_id"])
        # 503 says that the log did not answer: it may yet have taken the message.
        if answer.status_code == 503:
            return sent
        return _with(sent, Answer.REFUSED, final=True)


def _with(sent: Sent, answer: Answer, execution_id: str = "", *, final: bool = False) -> Sent:
    return replace(sent, answer=answer, execution_id=execution_id, final=final)
