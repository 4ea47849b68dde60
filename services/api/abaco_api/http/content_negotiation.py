"""``Accept``: which of our media types a client prefers (RFC 9110, 12.5.1)."""

import re
from collections.abc import Iterable

import msgspec

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", re.ASCII)


class Accept(msgspec.Struct, frozen=True):
    """The weights of media ranges, from 0 (not acceptable) to 1."""

    weights: dict[str, float]

    def prefers(self, media_type: str, *others: str) -> bool:
        """Whether a client prefers this type to all others.

        Of two types of the same weight it prefers the one that it names.
        """
        weight = self.weight(media_type)
        most = max(map(self.weight, others), default=0.0)
        return weight > most or (weight == most > 0 and media_type in self.weights)

    def weight(self, media_type: str) -> float:
        """The weight of a media type: that of the most specific range that includes it."""
        kind = media_type.partition("/")[0]
        for found in (media_type, f"{kind}/*", "*/*"):
            if found in self.weights:
                return self.weights[found]
        return 0.0


def accept(headers: Iterable[str]) -> Accept:
    """The weights in the headers; no header means ``*/*``.

    A malformed range is skipped. Parameters other than the weight are ignored.
    """
    weights: dict[str, float] = {}
    for part in ",".join(headers).lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = _weight(parameters)
        if name and weight is not None:
            weights[name] = max(weight, weights.get(name, 0.0))
    return Accept(weights or {"*/*": 1.0})


def _weight(parameters: Iterable[str]) -> float | None:
    """The weight among parameters, 1 if there is none; None if it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            found = _WEIGHT.fullmatch(value.strip())
            return None if found is None else float(found[0])
    return 1.0
