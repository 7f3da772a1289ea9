"""Every promise of docs/PROMISES.md names tests that exist; every page that a page links to exists."""

import re

import pytest

from tests.house.repo import ROOT, files

PAGES = files(suffix=".md")
PROMISES = (ROOT / "docs" / "PROMISES.md").read_text()


def broken_links(text: str, folder: str) -> list[str]:
    """Targets of a page's links to files that are not there."""
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text)
    return [target for target in targets if not (ROOT / folder / target).exists()]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PROMISES))))
def test_promised_test_exists(name: str) -> None:
    """A promise whose test is gone is a claim: restore the test or move the promise under "Not yet"."""
    assert (ROOT / name).is_file(), f"docs/PROMISES.md names {name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: object) -> None:
    """A link to a file that is not there: correct its path, or write the page."""
    path = ROOT / str(page)
    assert broken_links(path.read_text(), str(path.parent)) == []


def test_a_broken_link_is_seen() -> None:
    """The check can fail."""
    assert broken_links("[a](nowhere.md) [b](README.md) [c](https://example.org/x)", "") == ["nowhere.md"]
