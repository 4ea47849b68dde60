"""Wildcards: ``*`` stands for any characters, or none.

Regular expressions backtrack over all ways to split a text among many stars, so a client's pattern
could take years. Here each part between two stars is searched once, from the left: if the rest does
not match after its first occurrence, it matches after no later one.
"""

ANY = "*"


def wildcard_matches(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern, in time linear in the length of both."""
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
