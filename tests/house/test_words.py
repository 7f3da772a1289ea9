"""No file names a machine, a registry or a secret."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.house.repo import ROOT, faults_of, files, report

CURES: Final = {
    "a path of one machine": "Write it relative to the repository, or as a setting.",
    "a package registry": "Leave the host to the reader's own configuration of pip, npm or apt.",
    "a live secret": "Revoke it now, then take it out of the history.",
    "an unfinished thought": "Finish it, or open an issue and leave the code whole.",
}

_PATTERNS: Final = {
    "a path of one machine": r"(?<![\w.>}])/(?:work|root|home|Users)/\w",
    "a package registry": r"\b(?:pypi|npmjs|pythonhosted|debian|ubuntu|alpinelinux)\.(?:org|com)\b",
    "a live secret": r"\b(?:sk|rk)_live_\w{8}|-----BEGIN \w* ?PRIVATE KEY",
    "an unfinished thought": r"\b(?:TODO|FIXME|XXX|HACK)\b",
}


def words(text: str) -> Iterator[str]:
    """Every forbidden word: its line, its kind and itself."""
    for kind, pattern in _PATTERNS.items():
        for match in re.finditer(pattern, text):
            yield f"{text.count(chr(10), 0, match.start()) + 1}: {kind}: {match[0]}"


def _is_text(path: Path) -> bool:
    """Whether people wrote it: no zero byte, not this file of patterns, not the secrets of this machine."""
    return path not in {Path(__file__), ROOT / ".env"} and b"\0" not in path.read_bytes()


@pytest.mark.parametrize("kind", CURES)
def test_no_file_holds_a_forbidden_word(kind: str) -> None:
    found = [fault for fault in faults_of(filter(_is_text, files()), words) if f" {kind}: " in fault]
    assert not found, report(found, CURES[kind])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("see /home/ann/notes", "a path of one machine"),
        ("cd /root/x", "a path of one machine"),
        ("pip install -i https://pypi.org/simple", "a package registry"),
        ("files.pythonhosted.org", "a package registry"),
        ("key = 'sk_live_0123456789'", "a live secret"),
        ("-----BEGIN PRIVATE KEY-----", "a live secret"),
        ("# TODO: later", "an unfinished thought"),
    ],
)
def test_a_forbidden_word_is_seen(text: str, kind: str) -> None:
    assert [fault.split(": ")[:2] for fault in words(f"\n{text}")] == [["2", kind]]


@pytest.mark.parametrize("text", ["GET /v1/orgs/home/usage", "docs/work/x", "/src", "sk_live_ or sk_test_"])
def test_an_innocent_word_is_left_alone(text: str) -> None:
    assert list(words(text)) == []
