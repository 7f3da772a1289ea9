"""The laws of credits: what an organisation's grants, pool and burns say of each other."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from metering.store.fields import FieldCodec
from metering.store.pool import grant_from, pool_from

_TAKEN, _EXPIRED = "t", "x"


def credit_laws(
    org_id: str, pool: Mapping[str, str], grants: Mapping[str, str], burned: Mapping[str, str]
) -> Iterator[tuple[str, object]]:
    """Broken laws of one organisation: which, and the figures. Raises ValueError, KeyError at what is no figure."""
    left = {grant.grant_id: grant.left for grant in pool_from(pool).grants}
    spent: Counter[str] = Counter()
    for line, credits_ in burned.items():
        spent[line.rpartition("|")[2]] += int(credits_)
    amounts = {name: _amount(org_id, name, grants) for name in grants if "|" not in name}
    strangers = (left.keys() | spent.keys()) - amounts.keys()
    if strangers:
        yield "credits are of a grant", sorted(strangers)
    for name, amount in amounts.items():
        taken, expired = (int(grants.get(f"{name}|{kind}", 0)) for kind in (_TAKEN, _EXPIRED))
        parts = (spent[name], taken, expired, left.get(name, 0))
        if amount != sum(parts) or min(parts) < 0:
            yield "amount = burned + taken + expired + left", (name, amount, parts)
    empty = [name for name, credits_ in left.items() if credits_ < 1]
    if empty:
        yield "an open grant has credits", empty


def next_expiry(pool: Mapping[str, str]) -> int | None:
    """When the next open grant expires; None: none does."""
    return min((grant.expires_ms for grant in pool_from(pool).grants if grant.expires_ms is not None), default=None)


def _amount(org_id: str, name: str, grants: Mapping[str, str]) -> int:
    """As it was asked for, or as it was made where nobody asked: credits given back."""
    told = json.loads(FieldCodec().decode(org_id, "grant", grants[name]))
    return int(told["amount"]) if "amount" in told else grant_from(name, grants[f"{name}|g"]).left
