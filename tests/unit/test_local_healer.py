"""The healer restarts a NATS server that cannot write, once there is free space."""

from abaco_local.healer import MIN_FREE_BYTES, PAUSE_SECONDS, Healer, handle_event

WRITE_ERROR = (
    "[ERR] JetStream stream '$G > X' critical write error: write 1.blk: no space left on device"
)


class HealerStage:
    """A healer with a clock and free space that a test sets."""

    def __init__(self) -> None:
        self.now = self.free = 0
        self.logged: list[str] = []
        self.restarts = 0
        self.healer = Healer(self._restart, lambda: self.free, lambda: self.now, self.logged.append)

    def _restart(self) -> None:
        self.restarts += 1

    def line(self, text: str, of: str = "nats") -> None:
        payload = f"processname:{of} groupname:{of} pid:1 channel:stdout\n{text}"
        handle_event(self.healer, {"eventname": "PROCESS_LOG_STDOUT"}, payload)

    def tick(self) -> None:
        handle_event(self.healer, {"eventname": "TICK_5"}, "when:1")


def test_it_waits_for_free_space_and_logs_each_step_once() -> None:
    stage = HealerStage()
    for _ in range(3):
        stage.line(WRITE_ERROR)
        stage.tick()
    assert stage.restarts == 0
    assert len(stage.logged) == 2
    stage.free = MIN_FREE_BYTES
    stage.tick()
    stage.tick()
    assert stage.restarts == 1
    assert len(stage.logged) == 3


def test_it_does_not_restart_a_healthy_server() -> None:
    stage = HealerStage()
    stage.free = MIN_FREE_BYTES
    stage.line("[INF] Server is ready")
    stage.line(WRITE_ERROR, of="api")
    stage.tick()
    assert (stage.restarts, stage.logged) == (0, [])


def test_it_limits_restarts() -> None:
    stage = HealerStage()
    stage.free = MIN_FREE_BYTES
    for _ in range(5):
        stage.line(WRITE_ERROR)
        stage.tick()
    assert stage.restarts == 1
    stage.now += int(PAUSE_SECONDS)
    stage.tick()
    assert stage.restarts == 2
