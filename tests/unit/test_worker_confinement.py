"""The log line and the metric of how containers are confined."""

import pytest

from abaco_worker.app import confinement
from abaco_worker.app.worker_metrics import WorkerMetrics
from fake_engine import FakeEngine


def test_the_words() -> None:
    both = frozenset({"apparmor", "seccomp"})
    assert confinement.describe_confinement(both) == (
        "containers are confined by apparmor, seccomp; not in use: selinux"
    )
    assert confinement.describe_confinement(frozenset()).startswith(
        "containers are confined by none of these"
    )


async def test_it_is_said_once_the_engine_answers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    engine, metrics = FakeEngine(), WorkerMetrics()
    engine.available = False

    async def comes_back(_: float) -> None:
        engine.available = True

    monkeypatch.setattr("abaco_jetstream.retry.asyncio.sleep", comes_back)
    await confinement.report_confinement(engine, metrics)
    assert caplog.messages == ["containers are confined by seccomp; not in use: apparmor, selinux"]
    assert metrics.confinement.labels("seccomp")._value.get() == 1
    assert metrics.confinement.labels("apparmor")._value.get() == 0
