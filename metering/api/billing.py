"""Organisations and plans: what each organisation is granted, and who may change it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from metering.api.agreements import KINDS, override_of, refuse_faults, windows_of
from metering.api.bodies import Faults, fault, invalid
from metering.api.etags import etag_of
from metering.api.guard import visible
from metering.api.models.fields import PageQuery
from metering.api.models.orgs import BillingUpdate, OrgSettings
from metering.api.outcomes import window_view
from metering.api.route import Call, Reply, json_reply, tagged, tagged_read
from metering.api.usage import found, shown, with_holds
from metering.errors import OrgNotFound, PlanUnknown
from metering.moments import parse_ms
from metering.store.org import Org, settings_of
from metering.store.orgs import OrgChange
from plans.catalogue import KEEP, Catalogue, Override, Plan, nearest
from plans.limits import OnLimit, Rule
from plans.periods import Reset
from plans.subwindows import Per, RateLimit


async def update_billing(call: Call) -> Reply:
    """Change the organisation in the body; an unknown one is created where events may create it too."""
    body = call.sent(BillingUpdate)
    org_id = visible(call.caller, body.org_id)
    org, _ = await _updated(call, org_id, body, create=call.services.auto_create_orgs)
    return await _answer(call, org, 200)


async def put_org(call: Call) -> Reply:
    """Change or create the organisation in the path."""
    org_id = visible(call.caller, call.params["org_id"])
    org, created = await _updated(call, org_id, call.sent(OrgSettings), create=True)
    return await _answer(call, org, 201 if created else 200)


async def patch_org(call: Call) -> Reply:
    """Change the organisation in the path, which must be there."""
    org_id = visible(call.caller, call.params["org_id"])
    org, _ = await _updated(call, org_id, call.sent(OrgSettings), create=False)
    return await _answer(call, org, 200)


async def _answer(call: Call, org: Org, status: int) -> Reply:
    """The organisation after a change, with the ETag of its settings."""
    reply = json_reply(await shown(call, await with_holds(call, org)), status)
    return tagged(reply, etag_of(settings_of(org)))


async def get_org(call: Call) -> Reply:
    """The organisation in the path, with the ETag of its settings."""
    org = await found(call, call.params["org_id"])
    return tagged_read(call, json_reply(await shown(call, org)), etag_of(settings_of(org)))


async def list_orgs(call: Call) -> Reply:
    """One page of all organisations."""
    query = call.asked(PageQuery)
    orgs, following = await call.services.orgs.page(query.cursor, query.limit)
    views = [await shown(call, await with_holds(call, org)) for org in orgs]
    return json_reply({"data": views, "next_cursor": following})


async def _updated(call: Call, org_id: str, body: OrgSettings, *, create: bool) -> tuple[Org, bool]:
    """The organisation after the change, and whether it is new. Raises OrgNotFound where it is not to be created."""
    catalogue, orgs = call.services.catalogue, call.services.orgs
    _check_names(body, catalogue)
    refuse_faults(body, call.services.lookback.now_ms())
    change = change_of(body)
    only_if = partial(_check_conditions, call) if call.conditions else None
    org, created = await orgs.update(org_id, change, actor=call.caller.subject, create=create, only_if=only_if)
    if org is None:
        raise OrgNotFound
    return org, created


def _check_conditions(call: Call, before: Org | None, after: Org) -> None:
    """Raises PreconditionFailed. A repeat whose first try was not answered finds its own change: RFC 9110, section
    13.1.1, lets it succeed; without a key a change that is there already may be another's.
    """
    already = before == after and call.idempotency_key is not None and call.conditions.if_none_match is None
    if not already:
        call.conditions.check(None if before is None else etag_of(settings_of(before)))


def _check_names(body: OrgSettings, catalogue: Catalogue) -> None:
    """Raises PlanUnknown, or Invalid with every feature the catalogue does not have."""
    if body.plan:
        plan_named(body.plan, catalogue)
    faults: Faults = []
    named_at = {name: getattr(body, name) for name in (*KINDS, "overrides")}
    for place, named in named_at.items():
        faults += [unknown_feature(place, name, catalogue) for name in named if name not in catalogue.features]
    if faults:
        raise invalid(faults)


def plan_named(name: str, catalogue: Catalogue) -> Plan:
    """The plan of that name. Raises PlanUnknown."""
    if name not in catalogue.plans:
        near = nearest(name, catalogue.plans)
        hint = f"; did you mean '{near}'?" if near else ""
        raise PlanUnknown(f"no plan '{name}'{hint}", plan=name, nearest=near, plans=sorted(catalogue.plans))
    return catalogue.plans[name]


def unknown_feature(place: str, name: str, catalogue: Catalogue) -> dict[str, str]:
    """The fault of a feature that the catalogue does not have, as a key of the object at `place`."""
    near = nearest(name, catalogue.features)
    hint = f"did you mean '{near}'?" if near else f"known: {', '.join(sorted(catalogue.features))}"
    return fault(f"/{place}/{name}", "feature-unknown", f"no feature '{name}'; {hint}")


def change_of(body: OrgSettings) -> OrgChange:
    """The change a body asks for. What it leaves out stays; overrides go with the plan they were made for."""
    sets_overrides = not body.model_fields_set.isdisjoint({*KINDS, "overrides"})
    rate = body.rate_limit
    return OrgChange(
        plan=body.plan or None,
        overrides=partial(merged, body=body) if sets_overrides else None,
        reset=Reset(body.reset) if body.reset else None,
        timezone=body.timezone or None,
        stripe_customer_id=body.stripe_customer_id or None,
        sets_rate="rate_limit" in body.model_fields_set,
        rate=None if rate is None else RateLimit(rate.events, Per(rate.per), rate.burst),
        sets_price="price_minor" in body.model_fields_set,
        price_minor=body.price_minor,
        sets_end="overrides_expire_at" in body.model_fields_set,
        end_ms=None if body.overrides_expire_at is None else parse_ms(body.overrides_expire_at),
    )


def merged(kept: Mapping[str, Override], *, body: OrgSettings) -> dict[str, Override]:
    """The overrides after a change: `limits`, `on_limit` and `windows` each replace all of their kind, if given."""
    overrides = dict(kept)
    if "limits" in body.model_fields_set:
        overrides = {name: replace(override, limit=KEEP) for name, override in overrides.items()}
        for name, limit in body.limits.items():
            overrides[name] = replace(overrides.get(name, Override()), limit=limit)
    if "on_limit" in body.model_fields_set:
        overrides = {name: replace(override, on_limit=None) for name, override in overrides.items()}
        for name, on_limit in body.on_limit.items():
            overrides[name] = replace(overrides.get(name, Override()), on_limit=OnLimit(on_limit))
    if "windows" in body.model_fields_set:
        overrides = {name: replace(override, windows=None) for name, override in overrides.items()}
        for name, windows in body.windows.items():
            overrides[name] = replace(overrides.get(name, Override()), windows=windows_of(windows))
    for name, setting in body.overrides.items():
        overrides[name] = Override() if setting is None else override_of(setting)
    return {name: override for name, override in overrides.items() if override.changes}


def rule_view(rule: Rule) -> dict[str, Any]:
    """What a plan, or an organisation's own settings, say of a feature."""
    return {
        "limit": rule.limit,
        "unlimited": rule.limit is None,
        "on_limit": rule.on_limit.value,
        "enabled": rule.enabled,
        "windows": [window_view(window) for window in rule.windows],
    }


def rate_view(rate: RateLimit | None) -> dict[str, Any] | None:
    """A rate limit as the wire shows it."""
    return None if rate is None else {"events": rate.events, "per": rate.per.value, "burst": rate.burst}
