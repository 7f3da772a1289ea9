"""What the scripts of the credit ledger are told in words: who changes credits and why, and Stripe's ids, sealed."""

from metering.store.credit_lines import REF
from metering.store.fields import own_text
from metering.store.grants import REFUND_IDS, By
from metering.store.org import Org
from plans.credits import POOL


def named(org: Org, name: str, stripe_id: object) -> list[str]:
    """An id of Stripe's among the words of the trail: see `metering.store.trail.SEALED`."""
    return [] if stripe_id is None else [name, own_text(org.org_id, name, str(stripe_id), org.profile.data_key)]


def ref_word(org: Org, ref: object) -> str:
    """The ledger's ref, '' for none."""
    return "" if ref is None else own_text(org.org_id, REF, str(ref), org.profile.data_key)


def refund_word(org: Org, ref: str | None) -> str:
    """A refund among the words of the trail, '' for what is none."""
    return "".join(named(org, "refund", ref)[1:]) if ref and ref.startswith(REFUND_IDS) else ""


def author_words(by: By) -> list[str]:
    """Who, why, and in which request."""
    asked = ["request_id", by.request_id] if by.request_id else []
    return ["actor", by.actor, "reason", by.reason, *asked]


def scope_words(scope: str) -> list[str]:
    """The feature that a grant is for alone."""
    return [] if scope == POOL else ["feature", scope]
