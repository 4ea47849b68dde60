"""One sandbox: a container with a launcher beside it, and the connection to the launcher."""

from abaco_worker.domain.sandbox_record import Made
from abaco_worker.domain.sandbox_spec import Blueprint
from abaco_worker.sandbox.container_garbage_collector import Leftover
from abaco_worker.sandbox.launcher_client import Launcher, connect
from abaco_worker.sandbox.sandbox_directory import Place

ANSWER_SECONDS = 10.0
"""How long a launcher may take to answer in a container that has just been started."""

FOUND_SECONDS = 1.0
"""The same for one that was started in an earlier life: it waits, or it is gone."""


class Sandbox:
    """A container with a launcher beside it, and our connection to that."""

    def __init__(self, place: Place, made: Made) -> None:
        """Nothing is connected yet."""
        self.place = place
        self.made = made
        self.launcher: Launcher | None = None

    @property
    def blueprint(self) -> Blueprint:
        """What it was made from."""
        return self.made.blueprint

    @property
    def alive(self) -> bool:
        """Whether the launcher still waits, as far as can be told."""
        return self.launcher is not None and self.launcher.alive

    @property
    def leftover(self) -> Leftover:
        """What must be removed when it is over."""
        return Leftover(self.made.container_id, self.place.folder)

    async def connect(self, seconds: float) -> bool:
        """Connect to the launcher; whether it still waits.

        Raises:
            Unavailable: there is none (any more).
        """
        launcher = await connect(self.place, seconds)
        try:
            waits = await launcher.waits()
        except BaseException:
            launcher.close()
            raise
        self.close()
        self.launcher = launcher
        return waits

    def close(self) -> None:
        """Leave it alone."""
        if self.launcher is not None:
            self.launcher.close()
            self.launcher = None
