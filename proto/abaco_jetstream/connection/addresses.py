"""The setting ``ABACO_NATS_URL``: one address, or those of a cluster separated by commas."""

from urllib.parse import unquote, urlsplit

from abaco_proto import permissions


def addresses(url: str) -> list[str]:
    """The addresses in the setting."""
    return [address.strip() for address in url.split(",")]


def credentials(url: str) -> tuple[str, str] | tuple[None, None]:
    """User and password of the first address that has both; None if no address has them.

    They are used for every server: a server announces the addresses of the others to its clients,
    without passwords.
    """
    for address in map(urlsplit, addresses(url)):
        if address.username is not None and address.password is not None:
            return unquote(address.username), unquote(address.password)
    return None, None


def inbox_prefix(url: str) -> str:
    """The prefix of the user's reply subjects, to which no other user may subscribe."""
    return permissions.inbox_prefix(credentials(url)[0] or "")
