"""Two tenants with an actor of the same name and id, whose messages run on one host."""

from containers import left_of
from stack import Stack, eventually

NUMBERS = "abaco-test/numbers"
RED, BLUE = "default", "blue"


def act_for(stack: Stack, tenant: str, tokens: dict[str, str]) -> None:
    """Send further requests with the token of a tenant."""
    stack.http.headers["authorization"] = f"Bearer {tokens[tenant]}"


def test_each_runs_its_own_messages_and_sees_no_others(guarded_stack: Stack) -> None:
    stack = guarded_stack
    assert stack.http.get("/actors").status_code == 401
    tokens = {}
    for tenant in (RED, BLUE):
        made = stack.abaco("admin", "token", "--tenant", tenant)
        assert made.returncode == 0, made.stderr
        tokens[tenant] = made.stdout.strip()

    counts = {RED: "3", BLUE: "5"}
    for tenant in (RED, BLUE):
        act_for(stack, tenant, tokens)
        assert stack.register("counter", NUMBERS, min_workers=1) == "counter_0"
    sent = {}
    for tenant, count in counts.items():
        act_for(stack, tenant, tokens)
        sent[tenant] = [stack.send("counter_0", count) for _ in range(3)]
    assert sent[RED] == sent[BLUE]

    for tenant, count in counts.items():
        act_for(stack, tenant, tokens)
        stack.wait_complete(sent[tenant])
        totals = stack.call("GET", "/actors/counter_0/executions")
        assert (totals["total_executions"], totals["total_complete"]) == (3, 3)
        expected = "".join(f"{n}\n" for n in range(1, int(count) + 1))
        for execution_id in sent[tenant]:
            assert stack.logs(execution_id) == expected
        events = stack.try_list("/events?limit=10000")
        assert {event["tenant"] for event in events} == {tenant}
        finished = [e for e in events if e["type"] == "execution.finished"]
        assert len(finished) == 3

    # Both had a worker counter_0_wkr_0 on the one host; what one deletes is its own.
    act_for(stack, RED, tokens)
    stack.call("DELETE", "/actors/counter_0")
    eventually(lambda: stack.http.get("/actors/counter_0").status_code == 404, what="it is gone")
    act_for(stack, BLUE, tokens)
    stack.wait_complete([stack.send("counter_0", "1")])
    stack.call("DELETE", "/actors/counter_0")
    eventually(lambda: not left_of("counter_0", stack.host_id()), what="no container is left")
    verified = stack.abaco("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
