"""One concept has one name: words of the old vocabulary are in no code, page or log line.

docs/glossary.md has the names. Decisions (docs/adr) and CHANGELOG.md may tell of old ones.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".c", ".h", ".md", ".sql", ".toml", ".yaml", ".sh", ".conf"}
HISTORY = ("docs/adr/", "CHANGELOG.md", "requirements/", "docs/reference/asyncapi.json")
BUILT = {"build", "__pycache__", "node_modules"}
HERE = str(Path(__file__).relative_to(ROOT))

OLD = {
    "seat": "worker, or slot",
    "desk": "actor state",
    "wish": "append request, worker demand, or work item",
    "tip": "inbox head",
    "standing": "work item state, or position",
    "patience": "timeout, or retry_until_available",
    "patient": "timeout, or retry_until_available",
    "patiently": "timeout, or retry_until_available",
    "leftover": "unused container",
    "sweep": "bulk update, or garbage collector",
    "sweeper": "container garbage collector",
    "sweeping": "bulk update, or garbage collector",
    "swept": "updated, or removed",
    "stock": "sandbox pool",
    "blueprint": "sandbox specification",
    "drawn": "made, or read",
    "keeper": "snapshot manager",
    "census": "cluster statistics",
    "provenance": "code digest",
    "loan": "preemption",
    "leisure": "idle",
    "faltered": "consumer reset",
    "mute": "unresponsive",
    "surroundings": "host network fingerprint",
    "deferral": "write buffer",
    "born": "inserted",
}
"""Each old word, and the words to use."""

PHRASES = {
    r"\btold to (go|end|stop)\b": "shut down",
    r"\blets? go\b": "detach, or release",
    r"\bearlier life\b": "previous process",
    r"\blast word\b": "last event",
}

WIRE = {
    # names that clients, tables, subjects, settings and metrics have
    ("standing", "services/api/"),
    ("standing", "docs/reference/looking-back.md"),
    ("standing", "tests/integration/test_api_runs.py"),
    ("standing", "tests/unit/test_api_why.py"),
    # a key of a file in a sandbox's directory
    ("blueprint", "services/worker/abaco_worker/domain/sandbox_record.py"),
}
"""Words that a folder may use, since they are names on the wire."""

METRIC = re.compile(r"\babaco_\w+")
"""Metrics keep their names, as everything on the wire does."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def files() -> list[Path]:
    """The text files of the checkout that the rule is about; hidden and built ones are left out."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name[0] != "." and name not in BUILT]
        for path in (Path(folder, name) for name in names):
            name = str(path.relative_to(ROOT))
            if path.suffix in SUFFIXES and not name.startswith(HISTORY) and name != HERE:
                found.append(path)
    return found


def singular(word: str) -> str:
    """The word without the ending of a plural."""
    for ending, base in (("shes", "sh"), ("s", "")):
        if word.endswith(ending) and word.removesuffix(ending) + base in OLD:
            return word.removesuffix(ending) + base
    return word


def violations(name: str, text: str) -> Iterator[str]:
    """Each use of an old word: file, line, word, and what to write instead."""
    if name == "docs/glossary.md":  # the last column lists the old words
        text = re.sub(r"\|[^|\n]*\|$", "||", text, flags=re.MULTILINE)
    for number, line in enumerate(text.splitlines(), 1):
        for found in WORD.findall(METRIC.sub("", line)):
            word = singular(found.lower())
            allowed = any(word == it and name.startswith(place) for it, place in WIRE)
            if word in OLD and not allowed:
                yield f"{name}:{number}: {found}: write {OLD[word]}"
        for phrase, instead in PHRASES.items():
            if found_phrase := re.search(phrase, line, re.IGNORECASE):
                yield f"{name}:{number}: {found_phrase[0]}: write {instead}"


@pytest.mark.parametrize(
    "folder", ["proto", "telemetry", "services", "local", "compose", "docs", "tests", "bench", ""]
)
def test_no_word_of_the_old_vocabulary(folder: str) -> None:
    found = [
        violation
        for path in files()
        for name in [str(path.relative_to(ROOT))]
        if (name.split("/")[0] if "/" in name else "") == folder
        for violation in violations(name, path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["free_seats = 3", "class WishList:", "# it is told to go", "MAX_TIPS"]
)
def test_an_old_word_is_found(text: str) -> None:
    assert len(list(violations("services/api/x.py", text))) == 1


def test_the_glossary_lists_old_words_only_as_such() -> None:
    row = "| worker | one unit | `proto/abaco_proto/worker.py` | seat |"
    assert list(violations("docs/glossary.md", row)) == []
    assert len(list(violations("docs/reference/states.md", row))) == 1
