"""Credits put into an organisation's pool under the scripts' hands: the pool as it is, whatever made it."""

import json
from dataclasses import replace

from metering.store.fields import FieldCodec
from metering.store.pool import Pool, grant_text, pool_from
from plans.credits import Grant
from tests.lua.ledger import Ledger


async def give(ledger: Ledger, org_id: str, *grants: Grant, low: int | None = None, debt: int = 0) -> None:
    """Open these grants of an organisation that is there, with its low mark and what it owes."""
    orgs, keys = ledger.callers[0].orgs, ledger.keys
    org = await orgs.get(org_id)
    assert org is not None
    codec = FieldCodec()
    pipe = ledger.client.pipeline(transaction=True)
    pipe.hset(keys.pool(org_id), "debt", debt)
    if low is not None:
        pipe.hset(keys.pool(org_id), "low", low)
    for one in grants:
        pipe.hset(keys.pool(org_id), one.grant_id, grant_text(one))
        pipe.hset(keys.pool(org_id), "seq", one.seq)
        pipe.hset(keys.grants(org_id), one.grant_id, codec.encode(org_id, "grant", json.dumps({"amount": one.left})))
        if one.expires_ms is not None:
            pipe.zadd(keys.shared("lapsing", keys.partition(org_id)), {org_id: one.expires_ms}, lt=True)
    if not org.pool:
        claim = replace(org.claim, revision=org.claim.revision + 1)
        pipe.hset(keys.record(org_id), mapping={"pool": 1, "k": claim.text()})
    await pipe.execute()


async def freeze(ledger: Ledger, org_id: str, grant_id: str) -> Grant:
    """Freeze an open grant, or let it go again; returns it."""
    pool = await pool_of(ledger, org_id)
    one = next(grant for grant in pool.grants if grant.grant_id == grant_id)
    made = replace(one, frozen=not one.frozen)
    await ledger.client.hset(ledger.keys.pool(org_id), grant_id, grant_text(made))
    return made


async def pool_of(ledger: Ledger, org_id: str) -> Pool:
    """The pool as it is written."""
    return pool_from(await texts_of(ledger, ledger.keys.pool(org_id)))


async def texts_of(ledger: Ledger, key: str) -> dict[str, str]:
    """A hash."""
    return {name.decode(): text.decode() for name, text in (await ledger.client.hgetall(key)).items()}


async def burned_of(ledger: Ledger, org_id: str) -> dict[tuple[str, str], int]:
    """Credits burned, by feature and grant, whatever the day."""
    found: dict[tuple[str, str], int] = {}
    for line, credits_ in (await texts_of(ledger, ledger.keys.burned(org_id))).items():
        _, feature, grant_id = line.split("|")
        found[feature, grant_id] = found.get((feature, grant_id), 0) + int(credits_)
    return found


async def lines_of(ledger: Ledger, org_id: str) -> list[dict[str, str]]:
    """The ledger's lines."""
    found = await ledger.client.xrange(ledger.keys.ledger(org_id))
    return [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in found]
