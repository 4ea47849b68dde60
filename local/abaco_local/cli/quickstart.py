"""The quickstart against a running stack: prints each request and its answer."""

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
    token: str = ""

    @property
    def line(self) -> str:
        """The command line that a user types."""
        return f'curl -X POST --data "{self.data}" {self.url}' if self.data else f"curl {self.url}"

    def send(self) -> Any:
        """Send the request, with curl if it is installed; return the answer's JSON.

        Raises:
            Unavailable: there is no answer, or it is not JSON.
        """
        text = self._curl() if shutil.which("curl") else self._urllib()
        try:
            return json.loads(text)
        except ValueError:
            raise Unavailable(f"{self.url} answered no JSON: {text[:200]!r}") from None

    def _curl(self) -> str:
        data = ["-X", "POST", "--data", self.data] if self.data else []
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(ANSWER_SECONDS)]
        # The token goes over the standard input: arguments are seen by everybody on the machine.
        config = f'header = "Authorization: Bearer {self.token}"' if self.token else ""
        finished = subprocess.run(
            [*command, "--config", "-", *data, self.url],
            input=config,
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise Unavailable(finished.stderr.strip())
        return finished.stdout

    def _urllib(self) -> str:
        body = self.data.encode() or None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            request = urllib.request.Request(self.url, body, headers)  # noqa: S310
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            raise Unavailable(f"{self.url}: {error}") from None


def run(api_url: str, token: str = "") -> None:
    """Run the five steps.

    Raises:
        Unavailable: a step failed; the message says which.
    """
    actors = f"{api_url}/actors"
    _print_step("1. Register an image as an actor")
    created = print_answer(Request(actors, "image=jstubbs/abaco_test&name=foo", token))
    actor = f"{actors}/{created['id']}"
    _print_step("2. Wait until its workers are ready")
    wait_for_status(Request(actor, token=token), "READY", READY_SECONDS)
    _print_step("3. Send it a message")
    sent = print_answer(Request(f"{actor}/messages", "message=execute yourself", token))
    execution = f"{actor}/executions/{sent['execution_id']}"
    _print_step("4. Wait until the message is executed, and look at the statistics")
    wait_for_status(Request(execution, token=token), "COMPLETE", COMPLETE_SECONDS)
    print_answer(Request(f"{actor}/executions", token=token))
    _print_step("5. Read what it wrote")
    logs = print_answer(Request(f"{execution}/logs", token=token))
    if "Contents of MSG: execute yourself" not in str(logs):
        raise Unavailable("the logs do not hold the message")
    click.echo(f"\n{logs}")


def print_answer(request: Request) -> Any:
    """Send a request, print it and its answer, and return the result."""
    click.echo(f"$ {request.line}")
    return _print_result(request.send())


def wait_for_status(request: Request, status: str, seconds: float) -> None:
    """Poll until the result has the status; print each new status and the last answer.

    A 503 is not an error: a query may time out on a slow machine.
    """
    click.echo(f"$ {request.line}")
    deadline = time.monotonic() + seconds
    last_status = ""
    while True:
        answer = request.send()
        status_now = _status(answer)
        if status_now != last_status:
            click.echo(f"  … {status_now}")
        if status_now == status:
            _print_result(answer)
            return
        late = time.monotonic() > deadline
        if (
            late
            or status_now == "ERROR"
            or (answer.get("status") != "success" and status_now != UNAVAILABLE)
        ):
            _print_result(answer)
            raise Unavailable(f"{request.url} did not become {status}: it is {status_now}")
        last_status = status_now
        time.sleep(POLL_SECONDS)


def _status(answer: Any) -> str:
    if answer.get("error") == UNAVAILABLE:
        return UNAVAILABLE
    return str((answer.get("result") or {}).get("status"))


def _print_result(answer: Any) -> Any:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    if answer.get("status") != "success":
        raise Unavailable(f"the API refused: {answer.get('msg')}")
    return answer["result"]


def _print_step(title: str) -> None:
    click.echo(f"\n{title}\n")
