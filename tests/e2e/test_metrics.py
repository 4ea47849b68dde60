"""Each service of the running system says what it did."""

import httpx

import readings
from readings import value
from stack import Stack, eventually

APPENDED = {
    "api": "message.received",
    "scheduler": "execution.assigned",
    "worker": "execution.finished",
}


def read(stack: Stack) -> dict[str, readings.Reading]:
    """What each service says now."""
    urls = {service["name"]: service["metrics_url"] for service in stack.status()["services"]}
    assert {name for name, url in urls.items() if url is None} == {"nats", "postgres"}
    return {
        name: readings.read(httpx.get(url).raise_for_status().text)
        for name, url in urls.items()
        if url is not None
    }


def test_a_run_moves_the_counts_of_every_service(stack: Stack) -> None:
    actor_id = stack.register("counted", "abaco-test/quick", min_workers=1)
    stack.wait_ready(actor_id)
    before = read(stack)
    stack.wait_complete([stack.send(actor_id, "x")])
    stack.wait_complete([stack.send(actor_id, "y")])
    eventually(lambda: value(read(stack)["projector"], "abaco_projector_lag_events") == 0)
    after = read(stack)

    def moved(service: str, name: str, **labels: str) -> float:
        return value(after[service], name, **labels) - value(before[service], name, **labels)

    for service, kind in APPENDED.items():
        assert moved(service, "abaco_append_seconds_count", type=kind) >= 2, service
    route = "/actors/{actor_id}/messages"
    assert moved("api", "abaco_http_request_seconds_count", method="POST", route=route) == 2
    assert moved("api", "abaco_query_seconds_count") > 0
    assert moved("scheduler", "abaco_plan_seconds_count") > 0
    assert value(after["scheduler"], "abaco_capacity_seats") == 64
    assert value(after["scheduler"], "abaco_seats") >= 1
    for name in ("abaco_accepted_to_taken", "abaco_run", "abaco_started_to_recorded"):
        assert moved("worker", f"{name}_seconds_count") >= 2, name
    assert moved("worker", "abaco_executions_started_total") >= 2
    calls = "abaco_engine_call_seconds_count"
    assert value(after["worker"], calls, call="create") >= 1
    assert moved("worker", calls, call="create") < 2, "a container for each message"
    assert moved("projector", "abaco_projection_messages_total", projection="events") >= 8
    for service in ("api", "scheduler", "worker", "projector"):
        assert value(after[service], "abaco_nats_connected") == 1, service
        assert value(after[service], "process_resident_memory_bytes") > 1e6, service
