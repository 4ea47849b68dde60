"""Rows of the read models, with every column that the api reads."""

from datetime import timedelta
from typing import Any

import msgspec

import builders as b

EXECUTION: dict[str, Any] = {
    "execution_id": "foo_0_exc_0",
    "actor_id": "foo_0",
    "ordinal": 0,
    "status": "COMPLETE",
    "status_message": "",
    "attempt": 1,
    "worker_id": "foo_0_wkr_0",
    "host_id": "h1",
    "container_id": "c0ffee",
    "image_digest": "sha256:0123",
    "start_kind": "cold",
    "exit_code": 0,
    "final_state": msgspec.json.encode(b.final_state()).decode(),
    "cpu_ns": 9_000_000,
    "io_bytes": 736,
    "runtime_ms": 0.5,
    "memory_bytes": 50_000_000,
    "network_bytes": 12,
    "halt_requested": False,
    "rerun_of": None,
    "log_bytes": 33,
    "log_truncated": False,
    "message_received_at": b.T0,
    "taken_at": b.T0 + timedelta(seconds=0.5),
    "started_at": b.T0 + timedelta(seconds=1),
    "first_output_at": None,
    "finished_at": b.T0 + timedelta(seconds=2),
    "recorded_at": b.T0 + timedelta(seconds=2.5),
}
ACTOR: dict[str, Any] = {
    "actor_id": "foo_0",
    "definition": msgspec.json.encode(b.definition()).decode(),
    "status": "READY",
    "status_message": "",
    "state": '{"n":1}',
    "state_version": 3,
    "subscriptions": '{"foo_0_sub_1": "bar_0.>"}',
    "revision": 1,
    "registered_at": b.T0,
    "updated_at": b.T0,
    "total_executions": 2,
    "total_complete": 1,
    "total_error": 0,
    "total_halted": 1,
    "total_purged": 0,
    "total_cpu_ns": 9,
    "total_io_bytes": 8,
    "total_runtime_ms": 2004.5,
    "ids": ["foo_0_exc_0", "foo_0_exc_1"],
}
