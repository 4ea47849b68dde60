"""The errors of the container engine and of runs."""

from abaco_proto.errors import AbacoError, Refused, Unknown


class ImageMissing(Unknown):
    """The image is not on this host."""


class ImageRefused(Refused):
    """The image cannot be pulled or used. The text names the image and the cause."""


class ContainerMissing(Unknown):
    """The container does not exist, or no longer."""


class CannotStart(Refused):
    """The image's command cannot be run. This is a result of the execution, not a fault of ours.

    ``exit_code`` is that of a shell: 127 for not found, 126 for not executable.
    """

    def __init__(self, reason: str, *, exit_code: int) -> None:
        """``reason`` is the engine's text."""
        super().__init__(reason)
        self.exit_code = exit_code


class EngineFault(AbacoError):
    """The engine failed at what it was asked, and the image is not the cause."""


class RunLost(AbacoError):
    """A run ended without a result, and the image is not the cause."""
