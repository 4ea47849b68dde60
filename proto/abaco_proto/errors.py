"""The errors of all services, by cause.

An exception of a library is translated into one of these where the library is called, so that loops
and routes handle only these.
"""


class AbacoError(Exception):
    """The base class of all our errors."""


class Malformed(AbacoError):
    """The input has the wrong form. The same input will fail again."""


class Refused(AbacoError):
    """The input is well formed, but the current state does not allow it."""


class Unknown(AbacoError):
    """What the input names does not exist."""


class Conflict(AbacoError):
    """Another writer appended first. Read the new state and decide again."""


class Undecodable(AbacoError):
    """Bytes from the log that cannot be decoded. Skip and count them; retrying does not help."""


class Unavailable(AbacoError):
    """The log, the database or the engine does not answer. A later retry may succeed."""
