"""SQL files: statements by name."""

import re


def statements(text: str) -> dict[str, str]:
    """The statements of a file, by the names that ``-- name:`` gives them."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
