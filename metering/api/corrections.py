"""Corrections: units put in or taken out after the fact, by somebody, for a reason."""

import secrets
from collections import Counter
from typing import Any

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.corrections import AdjustmentRequest, ResetRequest, VoidedFeature, VoidRequest
from metering.api.outcomes import feature_unknown, with_window
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import span
from metering.errors import FeatureUnknown, TimestampOutOfRange
from metering.log import request_id
from metering.moments import parse_ms
from metering.store.correction import By, Change, Corrected, Correction, Figures, Row, adjustment, reset, void
from plans.limits import remaining


async def adjust_usage(call: Call) -> Reply:
    """Put units in or take them out. Raises what `Corrections.make` does."""
    body = call.sent(AdjustmentRequest)
    org_id = visible(call.caller, body.org_id)
    name, minted = _name(call, body.id)
    asked = adjustment(
        org_id, Change(body.feature, body.delta, place="/delta"), name, _by(call, body.reason), minted=minted,
        period_ms=_ms(body.period), at_ms=_ms(body.timestamp),
    )  # fmt: skip
    made = await _made(call, asked)
    return json_reply(_row_view(made.rows[0]) | _view(made))


async def void_event(call: Call) -> Reply:
    """Take an event back. Raises what `Corrections.make` does, and Invalid."""
    body = call.sent(VoidRequest)
    org_id = visible(call.caller, body.org_id)
    parts = _parts(body)
    content = [(part.feature, part.quantity) for part in parts]
    asked = void(
        org_id, body.source or "", call.params["event_id"], _changes(parts, several=bool(body.features)), content,
        _by(call, body.reason), period_ms=_ms(body.period), at_ms=_ms(body.timestamp),
    )  # fmt: skip
    made = await _made(call, asked)
    first, *others = map(_row_view, made.rows)
    return json_reply(first | _view(made) | {"also": others})


async def reset_usage(call: Call) -> Reply:
    """Set counters of the running period back. Raises what `Corrections.make` does."""
    body = call.sent(ResetRequest)
    org_id = visible(call.caller, call.params["org_id"])
    name, minted = _name(call, body.id)
    features = None if body.features is None else set(body.features)
    asked = reset(org_id, features, name, _by(call, body.reason), forgive=body.forgive_overage, minted=minted)
    made = await _made(call, asked)
    return json_reply(_view(made) | {"data": [_row_view(row) for row in made.rows]})


def _parts(body: VoidRequest) -> list[VoidedFeature]:
    """What the event asked for, in its order. Raises Invalid."""
    said = body.model_fields_set
    single = [name for name in VoidedFeature.model_fields if name in said]
    if body.features:
        if single:
            detail = "goes without `features`, which says it all"
            raise invalid([fault(f"/{name}", "either", detail) for name in single])
        return body.features
    missing = [name for name in ("feature", "quantity") if name not in said]
    if missing:
        raise invalid([fault(f"/{name}", "missing", "the field is missing") for name in missing])
    return [VoidedFeature(feature=body.feature, quantity=body.quantity, recorded=body.recorded)]


def _changes(parts: list[VoidedFeature], *, several: bool) -> list[Change]:
    """What an event counted, taken out: one change a feature, also where it named one twice. Raises Invalid."""
    places = [f"/features/{at}" if several else "" for at in range(len(parts))]
    faults = [
        fault(f"{place}/recorded", "recorded", "more than the event asked for")
        for place, part in zip(places, parts, strict=True)
        if part.recorded is not None and part.recorded > part.quantity
    ]
    if faults:
        raise invalid(faults)
    units: Counter[str] = Counter()
    for part in parts:
        units[part.feature] += part.quantity if part.recorded is None else part.recorded
    changes = []
    for feature in units:
        at = next(at for at, part in enumerate(parts) if part.feature == feature)
        named = all(part.recorded is not None for part in parts if part.feature == feature)
        changes.append(Change(feature, -units[feature], named, f"{places[at]}/quantity"))
    return changes


def _name(call: Call, given: str | None) -> tuple[str, bool]:
    """The correction's name, and whether it is of our making: then nobody else knows it, and only this request asks
    for it again.
    """
    if given is not None:
        return given, False
    return call.idempotency_key or f"cor_{secrets.token_hex(12)}", True


def _by(call: Call, reason: str) -> By:
    return By(call.caller.subject, reason, request_id.get())


def _ms(moment: str | None) -> int | None:
    return None if moment is None else parse_ms(moment)


async def _made(call: Call, asked: Correction) -> Corrected:
    """Make it, with the service's own words for what stands in the way."""
    services = call.services
    try:
        made = await services.corrections.make(asked)
    except TimestampOutOfRange as problem:
        raise with_window(problem) from None
    except FeatureUnknown as problem:
        feature = str(problem.extra["feature"])
        if feature in services.catalogue.features:
            raise
        raise feature_unknown(feature, services.catalogue) from None
    for row in made.rows:
        if row.delta > 0:
            services.measures.counted(asked.org_id, row.delta)
    return made


def _view(made: Corrected) -> dict[str, Any]:
    """What holds of the whole correction."""
    asked = made.correction
    return {"org_id": asked.org_id, "id": asked.name, "period": span(made.period), "duplicate": made.duplicate}


def _row_view(row: Row) -> dict[str, Any]:
    return {
        "feature": row.feature,
        "before": _counter_view(row.before),
        "after": _counter_view(row.after),
        "delta": row.delta,
        "overage_given_back": row.given_back,
        "stripe_action": "none",
        "audit_id": row.audit_id,
    }


def _counter_view(figures: Figures) -> dict[str, Any]:
    left = remaining(figures.limit, figures.used, figures.held)
    return {"used": figures.used, "overage": figures.overage, "remaining": left}
