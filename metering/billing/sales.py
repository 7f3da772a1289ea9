"""What a payment bought: read from a payment intent of Stripe's, and believed only where our seal is on it.

Metadata of an intent says who gets how many credits. Whoever holds a key of the account may write metadata, other
products sell on it too, and a browser knows the intent's id: so organisation, credits, amount and currency are sealed
together with the data set's own secret when the payment begins. A price that changes meanwhile changes no sale.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from metering.billing.gateway import StripeObject
from metering.billing.subscriptions import ORG_TAG
from metering.store.grants import Causes, Gone, Refunds, Spans

DATASET_TAG: Final = "metering_dataset"
"""Metadata of a customer or a payment: the data set that the organisation is of."""

CREDITS_TAG: Final = "metering_credits"
SEAL_TAG: Final = "metering_seal"
PRICE_TAG: Final = "metering_price_minor"
"""Metadata of a payment that Stripe adds tax to: what it costs without."""

NEGATIVE_TAG: Final = "metering_allow_negative"
"""Metadata of a refund: credits that are spent already become a debt."""

SUCCEEDED: Final = "succeeded"

_SEAL_BYTES: Final = 20
_DIGITS_MAX: Final = 13
"""Of a number of credits: no grant has more."""

GONE: Final = frozenset({"failed", "canceled"})
"""Refunds that gave nothing back: https://docs.stripe.com/api/refunds/object#refund_object-status."""

_HELD: Final = frozenset({"needs_response", "under_review", "appeal_needs_response", "appeal_under_review"})
"""Disputes that hold the money back. An inquiry (`warning_...`) does not: https://docs.stripe.com/disputes."""

_LOST: Final = "lost"

_PREVENTED: Final = "prevented"
"""Settled with the holder's bank before it became a dispute: https://docs.stripe.com/disputes/prevention."""


class Lie(StrEnum):
    """Why an intent that says it is ours is not believed."""

    MODE = "it is of the other mode"
    SEAL = "amount, currency, credits and organisation are not those that were sealed"
    AMOUNT = "another amount was paid than asked for, or less than it costs"


@dataclass(frozen=True, slots=True)
class Sale:
    """So many credits for an organisation, for an amount in minor units of a currency; tax is not in it."""

    org_id: str
    credits: int
    amount_minor: int
    currency: str
    tax_minor: int = 0

    @property
    def paid_minor(self) -> int:
        """What the payer pays."""
        return self.amount_minor + self.tax_minor


class NotOurs(Exception):
    """An intent that sells no credits of this data set. `lie` None: it does not even say so."""

    def __init__(self, lie: Lie | None = None) -> None:
        super().__init__("" if lie is None else lie.value)
        self.lie = lie


class Seals:
    """Seals the sales of one data set. `secret` is the data set's; `livemode` whether its payments move money."""

    def __init__(self, dataset_id: str, secret: bytes, *, livemode: bool) -> None:
        self.dataset_id, self._secret, self._livemode = dataset_id, secret, livemode

    def metadata(self, sale: Sale, *, taxed: bool = False) -> dict[str, str]:
        """What an intent of this sale has to carry. `taxed`: Stripe adds tax to the price, once it knows the place."""
        return {
            ORG_TAG: sale.org_id,
            DATASET_TAG: self.dataset_id,
            CREDITS_TAG: str(sale.credits),
            SEAL_TAG: self._seal(sale, taxed=taxed),
            **({PRICE_TAG: str(sale.amount_minor)} if taxed else {}),
        }

    def sale_of(self, intent: StripeObject) -> Sale:
        """What an intent sells, whether it is paid or not. Raises NotOurs.

        Of a taxed one the price is told and sealed: what is asked for beyond it is tax, as our checkouts add nothing
        else, and it is never less. Without tax the amount that is asked for is the one that was sealed.
        """
        told: Mapping[str, str] = intent.get("metadata") or {}
        if CREDITS_TAG not in told or told.get(DATASET_TAG) != self.dataset_id:
            raise NotOurs
        if intent["livemode"] is not self._livemode:
            raise NotOurs(Lie.MODE)
        taxed, asked = PRICE_TAG in told, intent["amount"]
        price = _number(told[PRICE_TAG]) if taxed else asked
        sale = Sale(told.get(ORG_TAG, ""), _number(told[CREDITS_TAG]), price, intent["currency"], asked - price)
        if not hmac.compare_digest(told.get(SEAL_TAG, "").encode(), self._seal(sale, taxed=taxed).encode()):
            raise NotOurs(Lie.SEAL)
        received = intent["amount_received"] if intent["status"] == SUCCEEDED else asked
        if asked < price or received != asked:
            raise NotOurs(Lie.AMOUNT)
        return sale

    def _seal(self, sale: Sale, *, taxed: bool) -> str:
        person = b"taxed sale" if taxed else b"credit sale"
        keyed = blake2b(key=self._secret[:64], digest_size=_SEAL_BYTES, person=person)
        for part in (self.dataset_id, sale.org_id, str(sale.credits), str(sale.amount_minor), sale.currency):
            data = part.encode()
            keyed.update(len(data).to_bytes(4, "big") + data)
        return keyed.hexdigest()


def _number(text: str) -> int:
    """A number of metadata; 0 for what is none, which nothing is sealed with."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0


def grant_id_of(intent_id: str) -> str:
    """The id of the grant that a payment makes: the same each time, so that no payment makes two."""
    return "cg_" + blake2b(intent_id.encode(), digest_size=15, person=b"credit grant").hexdigest()


def credits_back(sale: Sale, amount_minor: int) -> int:
    """The credits that go with an amount given back, tax and all: all with all of it, else rounded down, in the payer's
    favour.
    """
    return sale.credits * min(amount_minor, sale.paid_minor) // sale.paid_minor


@dataclass(frozen=True, slots=True)
class Reversal:
    """What became of a payment after it was made, in minor units. `held`: a dispute keeps the money back for now."""

    refunded_minor: int = 0
    lost_minor: int = 0
    held: bool = False

    @property
    def amount_minor(self) -> int:
        """All that is gone."""
        return self.refunded_minor + self.lost_minor


def refunds_of(sale: Sale, refunds: Iterable[StripeObject]) -> Refunds:
    """All refunds of a sale as they are counted: without the tax in them, as orders are. No sum falls: one that failed
    or was cancelled stays so, and none is ever deleted.

    https://docs.stripe.com/refunds#failed-refunds
    """
    known = list(refunds)
    failed = [one for one in known if one["status"] in GONE]
    begun_minor, failed_minor = (
        sum(one["amount"] for one in some) * sale.amount_minor // sale.paid_minor for some in (known, failed)
    )
    return Refunds(sale.currency, len(known), begun_minor, len(failed), failed_minor)


def reversal_of(refunds: Iterable[StripeObject], disputes: Iterable[StripeObject]) -> Reversal:
    """The same, from all refunds and disputes as they are now: a sum, so that it makes no difference which event of
    them came first, or twice, and a refund that failed is simply not in it.
    """
    live = [one for one in refunds if one["status"] not in GONE]  # of a failed one nothing is gone
    known = list(disputes)
    return Reversal(
        sum(one["amount"] for one in live),
        sum(one["amount"] for one in known if _is_lost(one)),
        any(one["status"] in _HELD for one in known),
    )


def _is_lost(dispute: StripeObject) -> bool:
    """Whether a dispute is over and its money gone: so is one that was prevented by giving its money back."""
    if dispute["status"] == _PREVENTED:
        moved = sum(one["amount"] for one in dispute.get("balance_transactions") or ())
        return bool(moved < 0)
    return bool(dispute["status"] == _LOST)


@dataclass(frozen=True, slots=True)
class Share:
    """The credits of a sale that go with one refund, from `start` up to `end`: older ones go first.

    `is_owed`: those that are spent already are owed.
    """

    refund_id: str
    start: int
    end: int
    is_owed: bool


def shares_of(sale: Sale, refunds: Iterable[StripeObject]) -> list[Share]:
    """The share of each refund that gave something back, the oldest first. Stripe lists the newest first."""
    live = [one for one in reversed(list(refunds)) if one["status"] not in GONE]
    shares, gone_minor = [], 0
    for one in sorted(live, key=lambda refund: int(refund["created"])):
        start = credits_back(sale, gone_minor)
        gone_minor += one["amount"]
        is_owed = (one.get("metadata") or {}).get(NEGATIVE_TAG) == "true"
        shares.append(Share(one["id"], start, credits_back(sale, gone_minor), is_owed))
    return shares


def owable(sale: Sale, refunds: Iterable[StripeObject]) -> Spans:
    """The spans of credits given back that are owed as far as they are spent: what lacks falls on the newest refund."""
    return tuple((one.start, one.end) for one in shares_of(sale, refunds) if one.is_owed and one.start < one.end)


def gone_of(sale: Sale, refunds: Sequence[StripeObject], disputes: Sequence[StripeObject]) -> Gone:
    """What a reading of a sale's refunds and disputes takes of its grant."""
    gone = reversal_of(refunds, disputes)
    asked = credits_back(sale, gone.amount_minor)
    return Gone(asked, refunds_of(sale, refunds), owable(sale, refunds), gone.held, causes_of(refunds, disputes))


def causes_of(refunds: Sequence[StripeObject], disputes: Sequence[StripeObject]) -> Causes:
    """The newest of each kind: it is what a reading finds new, but for what happened between two of them."""
    lost = [one for one in disputes if _is_lost(one)]
    live = [one for one in refunds if one["status"] not in GONE]
    failed = [one for one in refunds if one["status"] in GONE]
    held = [one for one in disputes if one["status"] in _HELD]
    return Causes(_newest([*lost, *live]), _newest([*failed, *disputes]), _newest([*held, *disputes]))


def _newest(found: Sequence[StripeObject]) -> str | None:
    return str(found[0]["id"]) if found else None
