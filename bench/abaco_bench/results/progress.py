"""Progress on standard error."""

import sys


def say(text: str) -> None:
    """One line to stderr, so that stdout holds the table alone."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
