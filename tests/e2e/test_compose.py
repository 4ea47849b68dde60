"""``compose.yaml``, run for real: from nothing, through the quickstart, down, and up again."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import images
import quickstart
from abaco_proto.errors import Unavailable
from abaco_proto.events import ActorDeleted
from compose_stack import SERVICES, ComposeStack, need_images
from servers import LOOPBACK, scratch_folder
from stack import eventually, read_log, try_append

TOO_LONG = 1024 * 1024 + 1


@pytest.fixture(scope="module")
def stack(test_images: None) -> Iterator[ComposeStack]:
    need_images()
    with scratch_folder() as folder:
        made = ComposeStack(folder / "secrets", f"abaco-test-{secrets.token_hex(4)}")
        try:
            made.up()
            yield made
        finally:
            made.http.close()
            made.remove()


def test_the_quickstart(stack: ComposeStack) -> None:
    quickstart.walk(stack, "composed")


def test_everything_is_healthy(stack: ComposeStack) -> None:
    for service in SERVICES:
        eventually(lambda: stack.health(service) == "healthy", what=f"{service} is healthy")  # noqa: B023


def test_processes_have_no_more_rights_than_they_need(stack: ComposeStack) -> None:
    for service in SERVICES:
        status = stack.proc_status(service)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0, service
        assert (status["Uid"].split()[0] == "0") == (service == "worker"), service


def test_nginx_takes_its_configuration(stack: ComposeStack) -> None:
    done = stack.compose("exec", "-T", "nginx", "sh", "/etc/nginx/start.sh", "-t")
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stdout + done.stderr


def test_the_answers_of_nginx_are_envelopes(stack: ComposeStack) -> None:
    answer = stack.http.post("/actors", content=b"x" * TOO_LONG)
    assert answer.status_code == 413
    assert answer.json()["error"] == "too_large"
    answer = stack.http.request("TRACE", "/actors")
    assert answer.status_code == 405
    assert answer.json() == {
        "status": "error",
        "msg": "this method is not allowed here",
        "result": None,
        "version": quickstart.VERSION,
        "error": "method_not_allowed",
    }


def test_metrics_are_read_inside_the_network_only(stack: ComposeStack) -> None:
    urls = [f"http://{name}:9090/metrics" for name in ("scheduler", "worker", "projector")]
    urls += [f"http://{name}:8000/metrics" for name in ("api-1", "api-2")]
    read = "import sys; from urllib.request import urlopen as read; "
    read += "[print(read(url).read().decode()) for url in sys.argv[1:]]"
    done = stack.compose("exec", "-T", "scheduler", "python", "-c", read, *urls)
    assert done.stdout.count("\nabaco_nats_connected 1.0") == len(urls), done.stderr
    assert stack.http.get("/metrics").status_code == 404


def test_one_api_is_enough(stack: ComposeStack) -> None:
    actors = [stack.register("spread", images.QUICK, min_workers=0) for _ in range(6)]
    for actor_id in actors:
        eventually(lambda: stack.actor_status(actor_id), what=f"{actor_id} is known")  # noqa: B023
    for api in ("api-1", "api-2"):
        stack.container(api).kill()
        with ThreadPoolExecutor(len(actors)) as pool:
            sent = list(pool.map(lambda actor_id: stack.send(actor_id, "x"), actors))
        assert {execution_id.rpartition("_exc_")[0] for execution_id in sent} == {*actors}
        stack.container(api).start()
        eventually(lambda: stack.health(api) == "healthy", what=f"{api} is healthy")  # noqa: B023
    stack.wait_complete(sent)


def test_nobody_there_is_said_in_an_envelope(stack: ComposeStack) -> None:
    stack.compose("stop", "api-1", "api-2")
    try:
        answer = stack.http.get("/actors")
        assert answer.status_code in (502, 504)
        assert answer.json()["error"] == "unavailable"
        assert answer.headers["Retry-After"] == "1"
    finally:
        stack.compose("start", "api-1", "api-2")
        eventually(stack.ready, what="the API is ready")


def test_a_reader_reads_the_log_and_changes_nothing(stack: ComposeStack) -> None:
    known = read_log(stack.reader_url)
    assert known
    with pytest.raises(Unavailable):
        try_append(stack.reader_url, ActorDeleted(actor_id="composed_0"))
    assert len(read_log(stack.reader_url)) == len(known)


def test_down_and_up(stack: ComposeStack) -> None:
    execution = "/actors/composed_0/executions/composed_0_exc_0"
    before = stack.call("GET", execution), stack.logs("composed_0_exc_0")
    events = read_log(stack.reader_url)
    assert "Violation" not in without_the_reader(stack.said("nats"))
    stack.down()
    stack.up()
    assert read_log(stack.reader_url)[: len(events)] == events
    assert (stack.call("GET", execution), stack.logs("composed_0_exc_0")) == before
    stack.wait_complete([stack.send("composed_0", "again")])


def test_an_api_that_others_reach_needs_authentication(stack: ComposeStack) -> None:
    """Its processes listen inside: what counts is the address at which nginx publishes them."""
    stack.change(api_host="0.0.0.0")
    try:
        done = stack.compose("run", "--rm", "--no-deps", "-T", "api-1")
    finally:
        stack.change(api_host=LOOPBACK)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("abaco-api:")]
    assert "ABACO_AUTH is off" in line
    assert "0.0.0.0" in line


def test_with_authentication_the_quickstart_needs_a_token(stack: ComposeStack) -> None:
    stack.change(auth="on")
    stack.up()
    eventually(stack.ready, what="the API is ready")
    assert stack.http.get("/actors").status_code == 401
    made = stack.compose("exec", "-T", "api-1", "python", "-m", "abaco_api.admin_token")
    assert made.returncode == 0, made.stderr
    stack.log_in(made.stdout.strip())
    quickstart.walk(stack, "guarded")


def without_the_reader(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if "user:reader" not in line)
