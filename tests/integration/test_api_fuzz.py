"""Requests made from the published description: whatever they say, it is never the api's fault.

A few examples of each in every run of the tests; ``make fuzz`` goes on for ten minutes.
"""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from api_stage import result_of, whole_stage
from deadlines import LIMIT_SECONDS
from mutations import SECONDS, SEED
from servers import PostgresServer

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
EXAMPLES = 5


OWN_FAULT = "schemathesis.core.errors.IncorrectUsage: Can not detect appropriate media type"
"""Schemathesis 4.32: after a long time its generator once draws a body without a media type."""


def only_its_own_fault(said: str) -> bool:
    """Whether the tool gave up on an operation before it had sent anything."""
    counted = re.findall(r"🚫 ([\w ]+): (\d+)", said)
    return "FAILURES" not in said and counted == [("Runtime Error", str(said.count(OWN_FAULT)))]


def test_no_request_makes_it_fail(
    shared_postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with whole_stage(shared_postgres, "api_fuzz") as api:
        actor = {"image": "jstubbs/abaco_test", "name": "foo"}
        result_of(httpx.post(f"{api.url}/actors", data=actor), 201)
        messages = f"{api.url}/actors/foo_0/messages"
        result_of(httpx.post(messages, data={"message": "hi"}))
        result_of(httpx.delete(messages))  # who follows its output is not kept waiting
        schemathesis = Path(sys.executable).with_name("schemathesis")
        long = ("fuzz", "--max-time", str(int(SECONDS)), "--continue-on-failure")
        argv = [
            *(str(schemathesis), *(long if SECONDS else ("run", "--max-examples", str(EXAMPLES)))),
            f"{api.url}/openapi.json",
            *("--checks", ",".join(CHECKS)),
            *("--seed", str(SEED), "--request-timeout", str(LIMIT_SECONDS)),
            *("--suppress-health-check", "too_slow"),  # the machine may be busy
        ]
        done = subprocess.run(
            argv,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS + 10 * LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0 or only_its_own_fault(done.stdout), done.stdout[-8000:]
        assert "Traceback" not in api.log, api.log
        if SECONDS:
            with capsys.disabled():
                print(done.stdout[-1500:])  # noqa: T201 - the counts
