"""A digest of the running code: a snapshot that other code folded is not used."""

import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import msgspec

PACKAGES = ("abaco_proto", "abaco_scheduler")


def code_digest(packages: Sequence[str] = PACKAGES) -> str:
    """Return a SHA-256 in hex of the packages' source files, and of Python's and msgspec's version.

    It changes with every module that may take part in the fold or in the encoding.
    """
    digest = sha256(f"{sys.version} {msgspec.__version__}".encode())
    for package in packages:
        spec = find_spec(package)
        assert spec is not None
        for folder in spec.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"\n{package} {path.relative_to(folder)}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
