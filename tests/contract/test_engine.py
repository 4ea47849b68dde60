"""The contract of the engine port, for the fake."""

import pytest

from abaco_proto.errors import Unavailable
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.engine.instrumented_engine import InstrumentedEngine
from contract.engine_suite import EngineSuite, spec_of
from fake_engine import IMAGE, UNSTARTABLE, FakeEngine, Program, message


class FakeYard:
    image = IMAGE
    unstartable = UNSTARTABLE
    host_id = "fake"

    def message(self, program: Program) -> str:
        return message(program)


@pytest.fixture
def yard() -> FakeYard:
    return FakeYard()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


class TestFakeEngine(EngineSuite):
    pass


class TestInstrumentedEngine(EngineSuite):
    @pytest.fixture
    def engine(self) -> InstrumentedEngine:
        return InstrumentedEngine(FakeEngine(), WorkerMetrics().measure_call)


async def test_an_engine_that_is_away_is_unavailable(engine: FakeEngine, yard: FakeYard) -> None:
    engine.available = False
    with pytest.raises(Unavailable):
        await engine.create(spec_of(yard))
