"""The errors of access: what a principal is refused with."""

from abaco_api.api_errors import TooLarge, TooMany
from abaco_proto.errors import AbacoError


class Unauthenticated(AbacoError):
    """No credential, or one that is not valid. The message says nothing of what is in it."""

    def __init__(self, what: str, *, invalid: bool = True) -> None:
        """``invalid``: there was a credential."""
        super().__init__(what)
        self.invalid = invalid

    @property
    def challenge(self) -> str:
        """The header ``WWW-Authenticate`` of the answer (RFC 6750, section 3)."""
        return 'Bearer realm="abaco"' + (', error="invalid_token"' if self.invalid else "")


class Forbidden(AbacoError):
    """The principal may read this, but not change it in this way."""


class CredentialTooLarge(TooLarge):
    """A credential that is longer than any that is accepted."""


class TooManyFailures(TooMany):
    """Too many invalid credentials from one address."""
