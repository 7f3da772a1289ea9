"""What the pages for people name is there: commands, targets, routes and files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from typer.main import get_command

from metering.api.routes import ROUTES
from metering.cli import app
from tests.house.repo import ROOT, short

PAGES: Final = {
    short(path): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if path.name != "CHANGELOG.md"
}

_CODE: Final = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_COMMAND: Final = re.compile(r"(?:^|[\s`(;|])metering ((?:[a-z][a-z-]*(?: |$|(?=`)))+)", re.MULTILINE)
_TARGET: Final = re.compile(r"`make ([a-z-]+)")
_ROUTE: Final = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]*[\w}])")
_LINK: Final = re.compile(r"\]\(([^)\s]*)\)")


def _tree(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command by its words, groups too."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from _tree(inner, (*path, name))


COMMANDS: Final = set(_tree(get_command(app)))
GROUPS: Final = {path[:-1] for path in COMMANDS if path}
SERVED: Final = {(route.method, path) for route in ROUTES for path in (route.path, *route.aliases)}


def commands(text: str) -> Iterator[str]:
    """Commands of ours that are named and are none: the longest beginning that could be one is looked at."""
    for words in _COMMAND.findall("\n".join(_CODE.findall(text))):
        path: tuple[str, ...] = ()
        for word in words.split():
            if path not in GROUPS:
                break  # arguments follow
            path = (*path, word)
        if path not in COMMANDS and path != ("on",):  # the user `metering on` of a store
            yield f"metering {' '.join(path)}"


def targets(text: str) -> Iterator[str]:
    """Targets of make that are named and are none."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    yield from (f"make {name}" for name in _TARGET.findall(text) if name not in known)


def routes(text: str) -> Iterator[str]:
    """Routes that are named and not served; a name in braces stands for any, a literal for a parameter."""
    for method, path in _ROUTE.findall(text):
        if path.startswith("/sandbox/"):
            continue  # of the sandbox Stripe, not of the service
        shape = re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path)))
        asked = [known for verb, known in SERVED if verb == method]
        if not any(shape.fullmatch(known) or _of(known).fullmatch(path) for known in asked):
            yield f"{method} {path}"


def _of(known: str) -> re.Pattern[str]:
    """What a served path takes: anything for a parameter."""
    return re.compile(re.sub(r"\{[^}]*\}", "[^/]+", known))


def links(text: str, page: Path) -> Iterator[str]:
    """Links to files of this repository that are not there."""
    for link in _LINK.findall(text):
        if ":" in link:
            continue
        if not (page.parent / link.partition("#")[0]).exists():
            yield link


OF_OTHERS: Final = {"docs/contract.md", "docs/stripe-contract.md", "docs/STATUS.md"}
"""Pages that name routes which are not there, or not ours."""


@pytest.mark.parametrize("page", sorted(PAGES))
def test_what_a_page_names_is_there(page: str) -> None:
    text = PAGES[page]
    strange = [*commands(text), *targets(text), *links(text, ROOT / page)]
    if page not in OF_OTHERS and "decisions" not in page:
        strange += routes("\n".join(_CODE.findall(text)))
    assert not strange, f"{page} names what is not there"


@pytest.mark.parametrize(
    ("planted", "look", "seen"),
    [
        ("`metering stripe setpu`", commands, "metering stripe setpu"),
        ("```sh\nmetering gone --now\n```", commands, "metering gone"),
        ("`make tset`", targets, "make tset"),
        ("`POST /v1/billing/chekout`", routes, "POST /v1/billing/chekout"),
        ("`GET /usage/{org_id}/nothing`", routes, "GET /usage/{org_id}/nothing"),
    ],
)
def test_what_is_not_there_is_seen(planted: str, look: object, seen: str) -> None:
    assert callable(look)
    assert list(look(planted)) == [seen]


def test_a_link_that_leads_nowhere_is_seen() -> None:
    text = "[a](docs/api.md) [b](docs/gone.md) [c](#here) [d](https://example.com)"
    assert list(links(text, ROOT / "README.md")) == ["docs/gone.md"]
