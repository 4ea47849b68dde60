"""The errors of the container engine and of runs."""

from abaco_proto.errors import AbacoError, Refused, Unknown


class ImageMissing(Unknown):
    """The image is not on this host."""


class ImageRefused(Refused):
    """The image cannot be had; the text names it and says why, for a person."""


class ContainerMissing(Unknown):
    """There is no such container (any more)."""


class CannotStart(Refused):
    """The image's own command cannot be run: a result of the execution, not a fault of ours.

    ``exit_code`` is what a shell would answer: 127 not found, 126 not executable.
    """

    def __init__(self, words: str, *, exit_code: int) -> None:
        """``words`` are the engine's."""
        super().__init__(words)
        self.exit_code = exit_code


class EngineFault(AbacoError):
    """The engine answered that it could not do it, for a reason that is not the image's."""


class RunLost(AbacoError):
    """A run that began has come to nothing, through no fault of the image's."""
