"""What can go wrong, by whose fault: the vocabulary every service shares.

A library's exception is translated into one of these where the library is called, so that a
loop or a route handles six cases and nothing else.
"""


class AbacoError(Exception):
    """The root of all errors raised on purpose."""


class Malformed(AbacoError):
    """The caller's input has the wrong form. Retrying the same input cannot help."""


class Refused(AbacoError):
    """The input is well formed, but the state does not allow it."""


class Unknown(AbacoError):
    """The thing that was named does not exist."""


class Conflict(AbacoError):
    """Another writer was faster. Look at the new state and decide again."""


class Undecodable(AbacoError):
    """Bytes from the log that no schema of ours reads. Skip and count; retrying cannot help."""


class Unavailable(AbacoError):
    """An outside system (log, database, engine) does not answer. Retrying later may help."""
