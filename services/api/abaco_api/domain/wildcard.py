"""Wildcards: ``*`` stands for any characters, or none.

Not by regular expressions: those try every way to share a text among many stars, and a pattern
that a client sends could keep this process busy for years. What stands between two stars is
looked for once, as far left as it goes: if the rest does not fit behind that, it fits nowhere.
"""

ANY = "*"


def fits(pattern: str, text: str) -> bool:
    """Whether a text is of a pattern, in time that grows with the length of both, no more."""
    begin, *others = pattern.split(ANY)
    if not others:
        return pattern == text
    *middle, end = others
    at, last = len(begin), len(text) - len(end)
    if last < at or not (text.startswith(begin) and text.endswith(end)):
        return False
    for part in middle:
        found = text.find(part, at, last)
        if found < 0:
            return False
        at = found + len(part)
    return True
