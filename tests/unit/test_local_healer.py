"""A NATS server that cannot write: it is started anew when that can help, and not before."""

from abaco_local.healer import MIN_FREE_BYTES, PAUSE_SECONDS, Healer, handle_event

SIGN = "[ERR] JetStream stream '$G > X' critical write error: write 1.blk: no space left on device"


class Ward:
    """A healer, and what it is told of the world."""

    def __init__(self) -> None:
        self.now = self.free = 0
        self.said: list[str] = []
        self.restarts = 0
        self.healer = Healer(self._restart, lambda: self.free, lambda: self.now, self.said.append)

    def _restart(self) -> None:
        self.restarts += 1

    def line(self, text: str, of: str = "nats") -> None:
        payload = f"processname:{of} groupname:{of} pid:1 channel:stdout\n{text}"
        handle_event(self.healer, {"eventname": "PROCESS_LOG_STDOUT"}, payload)

    def tick(self) -> None:
        handle_event(self.healer, {"eventname": "TICK_5"}, "when:1")


def test_it_waits_for_room_and_says_each_thing_once() -> None:
    ward = Ward()
    for _ in range(3):
        ward.line(SIGN)
        ward.tick()
    assert ward.restarts == 0
    assert len(ward.said) == 2
    ward.free = MIN_FREE_BYTES
    ward.tick()
    ward.tick()
    assert ward.restarts == 1
    assert len(ward.said) == 3


def test_it_leaves_a_server_alone_that_is_well() -> None:
    ward = Ward()
    ward.free = MIN_FREE_BYTES
    ward.line("[INF] Server is ready")
    ward.line(SIGN, of="api")
    ward.tick()
    assert (ward.restarts, ward.said) == (0, [])


def test_it_does_not_start_it_again_and_again() -> None:
    ward = Ward()
    ward.free = MIN_FREE_BYTES
    for _ in range(5):
        ward.line(SIGN)
        ward.tick()
    assert ward.restarts == 1
    ward.now += int(PAUSE_SECONDS)
    ward.tick()
    assert ward.restarts == 2
