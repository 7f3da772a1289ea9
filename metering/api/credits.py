"""Credits: what an organisation has, what became of it, and giving and taking by administrators."""

import hashlib
import re
from typing import Any, Final

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.credits import (
    ANY,
    GRANT_ID_PATTERN,
    BalanceQuery,
    GrantRequest,
    GrantsQuery,
    RevokeQuery,
    TransactionsQuery,
)
from metering.api.route import Call, Reply, json_reply
from metering.api.sheets import sheet
from metering.api.usage import balance_members, found
from metering.errors import GrantNotFound
from metering.log import request_id
from metering.moments import parse_ms, rfc3339
from metering.store.credit_lines import Line
from metering.store.grants import By, GrantOrder, GrantState
from plans.catalogue import Catalogue, nearest
from plans.credits import POOL, Grant, Kind

_is_grant_id = re.compile(GRANT_ID_PATTERN[1:-1]).fullmatch

_REF_OF: Final = {
    "re_": "stripe_refund_id", "pyr_": "stripe_refund_id", "dp_": "stripe_dispute_id", "du_": "stripe_dispute_id",
}  # fmt: skip
"""What an id of Stripe's names, by how it begins."""

_COLUMNS: Final = (
    "at", "type", "credits", "amount", "balance", "grant", "feature", "stripe_payment_intent_id", "stripe_refund_id",
    "stripe_dispute_id",
)  # fmt: skip


# ── administrators ───────────────────────────────────────────────────────────────────────────────────────────


async def create_grant(call: Call) -> Reply:
    """Give credits. Raises OrgNotFound, Invalid, TooManyGrants."""
    org_id, body = visible(call.caller, call.params["org_id"]), call.sent(GrantRequest)
    order = _order(call, org_id, body)
    made = await call.services.credits.grant(org_id, order, _by(call, body.reason))
    grant = await call.services.credits.find(org_id, order.grant_id)
    return json_reply(grant_view(org_id, grant) | {"balance": made.balance}, 201)


async def revoke_grant(call: Call) -> Reply:
    """Take back what is left of a grant, for good. Raises OrgNotFound, GrantNotFound."""
    org_id, grant_id = visible(call.caller, call.params["org_id"]), call.params["grant_id"]
    if not _is_grant_id(grant_id):
        raise invalid([fault("/grant_id", "grant-id", "not the id of a grant")])
    taken = await call.services.credits.revoke(org_id, grant_id, _by(call, call.asked(RevokeQuery).reason))
    grant = await call.services.credits.find(org_id, grant_id)
    return json_reply(grant_view(org_id, grant) | {"balance": taken.balance})


async def list_grants(call: Call) -> Reply:
    """One page of an organisation's grants, the newest first. Raises OrgNotFound."""
    org_id, query = visible(call.caller, call.params["org_id"]), call.asked(GrantsQuery)
    grants = await call.services.credits.grants(org_id)
    names = [one.grant_id for one in grants]
    first = 0
    if query.cursor is not None:
        if query.cursor not in names:
            raise GrantNotFound
        first = names.index(query.cursor) + 1
    page = grants[first : first + query.limit]
    more = first + len(page) < len(grants)
    views = [grant_view(org_id, one) for one in page]
    return json_reply({"data": views, "next_cursor": page[-1].grant_id if more else None})


def _order(call: Call, org_id: str, body: GrantRequest) -> GrantOrder:
    """The grant that a body asks for. Raises Invalid."""
    catalogue = call.services.catalogue
    if body.scope != ANY and body.scope not in catalogue.features:
        near = nearest(body.scope, catalogue.features)
        hint = f"; did you mean '{near}'?" if near else ""
        raise invalid([fault("/scope", "feature-unknown", f"no feature '{body.scope}'{hint}")])
    if body.rollover is not None and body.expires_at is None:
        raise invalid([fault("/rollover", "conflict", "goes only with `expires_at`")])
    name = hashlib.blake2b(f"{org_id}\n{call.name()}".encode(), digest_size=12).hexdigest()
    return GrantOrder(
        f"cg_{name}",
        body.amount,
        Kind(body.kind),
        POOL if body.scope == ANY else body.scope,
        body.priority,
        None if body.effective_at is None else max(0, parse_ms(body.effective_at)),
        None if body.expires_at is None else parse_ms(body.expires_at),
        0 if body.rollover is None else body.rollover.max,
    )


def _by(call: Call, reason: str) -> By:
    return By(call.caller.subject, reason, request_id.get())


# ── whoever reads ────────────────────────────────────────────────────────────────────────────────────────────


async def get_balance(call: Call) -> Reply:
    """What an organisation has in credits. Raises OrgNotFound."""
    org = await found(call, call.asked(BalanceQuery).org_id)
    told = await call.services.credits.balance_of(org)
    grants = [_open_view(one, usable=True) for one in told.grants] + [
        _open_view(one, usable=False) for one in told.later
    ]
    value = currency_value(told.balance, call.services.catalogue)
    return json_reply({"org_id": org.org_id} | balance_members(told) | {"currency_value": value, "grants": grants})


def currency_value(credits_: int, catalogue: Catalogue) -> dict[str, Any] | None:
    """What credits would cost in the smallest package, cut to whole minor units; None where none is sold."""
    package = next(iter(catalogue.packages.values()), None)
    if package is None:
        return None
    amount_minor = max(0, credits_) * package.price_minor // package.credits
    return {"amount_minor": amount_minor, "currency": catalogue.currency}


async def list_transactions(call: Call) -> Reply:
    """One page of what became of credits, the newest line first. Raises OrgNotFound."""
    query = call.asked(TransactionsQuery)
    org_id, book = visible(call.caller, query.org_id), call.services.credits
    lines, following = await book.transactions(org_id, query.limit, query.cursor)
    sources = await book.sources(org_id, {line.grant_id for line in lines if line.grant_id})
    views = [line_view(line, sources.get(line.grant_id or "", {}).get("payment_intent")) for line in lines]
    if query.format == "csv":
        return _csv(org_id, views, following)
    return json_reply({"org_id": org_id, "data": views, "next_cursor": following})


def _csv(org_id: str, views: list[dict[str, Any]], following: str | None) -> Reply:
    """The page as a file. Where the next begins stands in its headers."""
    headers = {"Content-Disposition": f'attachment; filename="credits-{org_id}.csv"'}
    if following is not None:
        headers["X-Next-Cursor"] = following
    rows = ([view[name] for name in _COLUMNS] for view in views)
    return Reply(sheet(_COLUMNS, rows), kind=b"text/csv; charset=utf-8", headers=headers)


# ── views ────────────────────────────────────────────────────────────────────────────────────────────────────


def terms_view(grant: Grant | GrantState) -> dict[str, Any]:
    """What a grant is for, and when."""
    return {
        "id": grant.grant_id,
        "scope": grant.scope or ANY,
        "kind": grant.kind.value,
        "priority": grant.priority,
        "effective_at": rfc3339(grant.effective_ms),
        "expires_at": _moment(grant.expires_ms),
    }


def _open_view(grant: Grant, *, usable: bool) -> dict[str, Any]:
    return terms_view(grant) | {"left": grant.left, "usable": usable, "frozen": grant.frozen}


def grant_view(org_id: str, grant: GrantState) -> dict[str, Any]:
    """A grant as it stands."""
    return terms_view(grant) | {
        "org_id": org_id,
        "amount": grant.amount,
        "left": grant.left,
        "burned": grant.burned,
        "taken": grant.taken,
        "expired": grant.expired,
        "owed": grant.owed,
        "rollover": {"max": grant.rollover} if grant.rollover else None,
        "frozen": grant.frozen,
        "revoked": grant.revoked,
        "reason": grant.reason,
        "granted_by": grant.by,
        "created_at": rfc3339(grant.created_ms),
        "stripe_payment_intent_id": grant.source.get("payment_intent"),
        "amount_minor": grant.source.get("amount_minor"),
        "currency": grant.source.get("currency"),
    }


def line_view(line: Line, payment: str | None) -> dict[str, Any]:
    """A line of the ledger as the wire shows it; `payment` is the Stripe payment that its grant was bought with."""
    named = {"stripe_refund_id": None, "stripe_dispute_id": None}
    ref = line.ref or ""
    return {
        "at": rfc3339(line.at_ms),
        "type": line.kind,
        "credits": line.credits,
        "amount": line.amount,
        "balance": line.balance,
        "grant": line.grant_id,
        "feature": line.feature,
        "stripe_payment_intent_id": payment,
        **named,
        **{name: ref for start, name in _REF_OF.items() if ref.startswith(start)},
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
