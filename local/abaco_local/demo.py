"""The quickstart, walked through against a running stack: each command and its real answer."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

import click
import msgspec

from abaco_proto.errors import Unavailable

READY_SECONDS = 300
COMPLETE_SECONDS = 300
POLL_SECONDS = 0.5
ANSWER_SECONDS = 30
UNAVAILABLE = "unavailable"
"""The ``error`` of an answer with the status 503."""


class Request(msgspec.Struct, frozen=True):
    """One request, as a user types it with curl."""

    url: str
    data: str = ""

    @property
    def line(self) -> str:
        """What a user types."""
        return f'curl -X POST --data "{self.data}" {self.url}' if self.data else f"curl {self.url}"

    def send(self) -> Any:
        """Send it, with curl where there is one; return the answer's JSON.

        Raises:
            Unavailable: if there is no answer, or none in JSON.
        """
        text = self._curl() if shutil.which("curl") else self._urllib()
        try:
            return json.loads(text)
        except ValueError:
            raise Unavailable(f"{self.url} answered no JSON: {text[:200]!r}") from None

    def _curl(self) -> str:
        data = ["-X", "POST", "--data", self.data] if self.data else []
        words = ["curl", "-sS", "--noproxy", "*", "--max-time", str(ANSWER_SECONDS)]
        done = subprocess.run(
            [*words, *data, self.url], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(done.stderr.strip())
        return done.stdout

    def _urllib(self) -> str:
        body = self.data.encode() or None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url, body, ANSWER_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            raise Unavailable(f"{self.url}: {error}") from None


def run(api_url: str) -> None:
    """Walk the five steps.

    Raises:
        Unavailable: a sentence about what did not arrive.
    """
    actors = f"{api_url}/actors"
    _step("1. Register an image as an actor")
    created = show(Request(actors, "image=jstubbs/abaco_test&name=foo"))
    actor = f"{actors}/{created['id']}"
    _step("2. Wait until its workers are ready")
    show_when(Request(actor), "READY", READY_SECONDS)
    _step("3. Send it a message")
    sent = show(Request(f"{actor}/messages", "message=execute yourself"))
    execution = f"{actor}/executions/{sent['execution_id']}"
    _step("4. Wait until the message is executed, and look at the statistics")
    show_when(Request(execution), "COMPLETE", COMPLETE_SECONDS)
    show(Request(f"{actor}/executions"))
    _step("5. Read what it wrote")
    logs = show(Request(f"{execution}/logs"))
    if "Contents of MSG: execute yourself" not in str(logs):
        raise Unavailable("the logs do not hold the message")
    click.echo(f"\n{logs}")


def show(request: Request) -> Any:
    """Print a request and its answer; return the answer's result."""
    click.echo(f"$ {request.line}")
    return _shown(request.send())


def show_when(request: Request, status: str, seconds: float) -> None:
    """Ask until the result has the status, saying each new one, and print the last answer.

    An answer that a service is unavailable is no end: on a slow machine a query can time out.
    """
    click.echo(f"$ {request.line}")
    deadline = time.monotonic() + seconds
    before = ""
    while True:
        answer = request.send()
        now = _status(answer)
        if now != before:
            click.echo(f"  … {now}")
        if now == status:
            _shown(answer)
            return
        late = time.monotonic() > deadline
        if late or now == "ERROR" or (answer.get("status") != "success" and now != UNAVAILABLE):
            _shown(answer)
            raise Unavailable(f"{request.url} did not become {status}: it is {now}")
        before = now
        time.sleep(POLL_SECONDS)


def _status(answer: Any) -> str:
    if answer.get("error") == UNAVAILABLE:
        return UNAVAILABLE
    return str((answer.get("result") or {}).get("status"))


def _shown(answer: Any) -> Any:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer.get("status") != "success":
        raise Unavailable(f"the API refused: {answer.get('msg')}")
    return answer["result"]


def _step(title: str) -> None:
    click.echo(f"\n{title}\n")
