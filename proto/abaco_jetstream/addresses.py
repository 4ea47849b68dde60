"""Where the servers are: one address, or those of a cluster with commas between them."""

from urllib.parse import unquote, urlsplit

from abaco_proto import permissions


def addresses(url: str) -> list[str]:
    """The addresses in a setting."""
    return [address.strip() for address in url.split(",")]


def credentials(url: str) -> tuple[str, str] | tuple[None, None]:
    """User and password, from the first address that has both; None where none has.

    A server tells its clients where the others are, without any password. The client must have
    one for those, too.
    """
    for address in map(urlsplit, addresses(url)):
        if address.username is not None and address.password is not None:
            return unquote(address.username), unquote(address.password)
    return None, None


def inbox_prefix(url: str) -> str:
    """Where the servers' answers to this user go, which no other user may listen to."""
    return permissions.inbox_prefix(credentials(url)[0] or "")
