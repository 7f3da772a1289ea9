"""Pages for people in trouble: a section for every symptom, the steps with Stripe, links that lead to a heading."""

import re
from typing import Final

import pytest

from tests.house.repo import ROOT, files

PAGES: Final = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files(suffix=".md")}

TROUBLE: Final = PAGES["docs/troubleshooting.md"]
STEPS: Final = PAGES["docs/stripe.md"]


def anchors(page: str) -> set[str]:
    """What can be linked to in a page: its headings as the forge spells them, and anchors set by hand."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', page))


def dangling(name: str, pages: dict[str, str]) -> list[str]:
    """Links of a page to places of a page that are not there."""
    folder = name.rpartition("/")[0]
    found = []
    for file, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", pages[name]):
        target = name if not file else "/".join(filter(None, (folder, file)))
        target = re.sub(r"[\w.-]+/\.\./", "", target)
        if target in pages and anchor not in anchors(pages[target]):
            found.append(f"{file}#{anchor}")
    return found


@pytest.mark.parametrize(
    ("symptom", "words"),
    [
        ("The store's memory grows", ("maxmemory", "EVENT_RETENTION")),
        ("Answers are slow", ("--latency", "WORKERS")),
        ("Usage is missing, or is not counted", ("token", "org_id", "browser's storage")),
        ("Stripe refuses: 502 stripe-error, 503 stripe-unavailable", ("keys", "doctor")),
        ("No webhook comes in", ("address", "certificate", "STRIPE_WEBHOOK_SECRET")),
        ("A checkout fails", ("price", "STRIPE_SECRET_KEY")),
        ("A payment cannot begin", ("token", "STRIPE_SECRET_KEY", "packages")),
        ("It was paid, and the credits are not there", ("succeeded", "webhook", "catch-up")),
        ("It was paid, and the plan is still the old one", ("catch-up",)),
        ("See more: debug mode", ("DEBUG=true", "LOG_LEVEL=DEBUG")),
    ],
)
def test_a_symptom_has_its_section_with_what_to_look_at(symptom: str, words: tuple[str, ...]) -> None:
    _, _, rest = TROUBLE.partition(f"\n### {symptom}\n")
    section = rest.partition("\n#")[0]
    assert section, f"docs/troubleshooting.md has no section {symptom!r}"
    assert [word for word in words if word not in section] == []


@pytest.mark.parametrize(
    "step",
    [
        "stripe listen --forward-to localhost:8005/webhooks/stripe",
        "stripe trigger customer.subscription.created",
        "stripe trigger invoice.paid",
        "stripe trigger payment_intent.succeeded",
        "4242 4242 4242 4242",
        "4000 0000 0000 0002",
        "sk_test_...",
        "pk_test_...",
        "metering stripe setup",
        "certificate",
        "live keys",
        "deliveries",
    ],
)
def test_the_way_from_nothing_to_live_has_every_step(step: str) -> None:
    _, _, rest = STEPS.partition("\n## From nothing to live, step by step\n")
    assert step in rest.partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_link_to_a_place_of_a_page_leads_there(name: str) -> None:
    assert dangling(name, PAGES) == []


def test_a_link_that_leads_nowhere_is_seen() -> None:
    pages = {
        "docs/a.md": "# One two\n[a](#one-two) [b](#one) [c](b.md#x) [d](../c.md#y)",
        "docs/b.md": "## X",
        "c.md": "",
    }
    assert dangling("docs/a.md", pages) == ["#one", "../c.md#y"]


def test_who_finds_a_hole_is_told_whom_to_tell_and_under_what_terms_the_code_is() -> None:
    assert "Do not open a public issue" in PAGES["SECURITY.md"]
    assert "SECURITY.md" in PAGES["CONTRIBUTING.md"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
