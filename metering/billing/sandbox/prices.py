"""/v1/products and /v1/prices: https://docs.stripe.com/api/products, https://docs.stripe.com/api/prices."""

from fractions import Fraction
from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import (
    COUNT,
    CREATED,
    DECIMAL,
    FLAG,
    LIST,
    METADATA,
    TEXT,
    Either,
    Field,
    Fields,
    Many,
    Need,
    OneOf,
    Text,
    Whole,
)
from metering.billing.sandbox.lists import page, within
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.unbuilt import unbuilt

PRODUCT: Final = "product"
PRICE: Final = "price"


def create_product(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/products."""
    product = {
        "id": params.get("id") or ctx.db.new_id("prod"),
        "object": PRODUCT,
        "active": params.get("active") is not False,
        "created": ctx.now_s,
        "default_price": None,
        "description": params.get("description"),
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": merged({}, params.get("metadata") or {}),
        "name": params["name"],
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": ctx.now_s,
        "url": None,
    }
    if ctx.db.get(PRODUCT, product["id"]):
        raise ApiError(f"Product already exists: {product['id']}", code="resource_already_exists", param="id")
    ctx.db.put(PRODUCT, product)
    ctx.emit("product.created", product)
    return product


def create_price(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/prices: by unit, package or tiers; a metered one needs a meter."""
    ctx.need(PRODUCT, params["product"], param="product")
    _check(ctx, params)
    exact = params.get("unit_amount_decimal")
    whole = params.get("unit_amount")
    tiers = params.get("tiers")
    price = {
        "id": ctx.db.new_id("price"),
        "object": PRICE,
        "active": params.get("active") is not False,
        "billing_scheme": params.get("billing_scheme") or "per_unit",
        "created": ctx.now_s,
        "currency": params["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": _lookup_key(ctx, params),
        "metadata": merged({}, params.get("metadata") or {}),
        "nickname": params.get("nickname"),
        "product": params["product"],
        "recurring": _recurring(params.get("recurring")),
        "tax_behavior": params.get("tax_behavior") or "unspecified",
        "tiers_mode": params.get("tiers_mode"),
        "transform_quantity": params.get("transform_quantity"),
        "type": "recurring" if params.get("recurring") else "one_time",
        **_amounts("unit_amount", whole, exact),
    }
    if tiers:
        price["tiers"] = [_tier(tier) for tier in tiers]
    ctx.db.put(PRICE, price)
    ctx.emit("price.created", price)
    return price


def retrieve_product(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/products/{id}."""
    del params
    return ctx.need(PRODUCT)


def retrieve_price(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/prices/{price}."""
    del params
    return ctx.need(PRICE)


def update_product(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/products/{id}."""
    return _update(ctx, PRODUCT, params, ("active", "description", "name"))


def update_price(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/prices/{price}: what it costs never changes."""
    if "lookup_key" in params:
        params["lookup_key"] = _lookup_key(ctx, params)
    return _update(ctx, PRICE, params, ("active", "lookup_key", "nickname", "tax_behavior"))


def list_products(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/products: the newest first."""
    rows = ctx.db.all(PRODUCT, newest_first=True)
    if params.get("ids"):
        rows = [row for row in rows if row["id"] in params["ids"]]
    return page(ctx, within(_active(rows, params), params.get("created")), params)


def list_prices(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/prices: the newest first."""
    rows = _active(ctx.db.all(PRICE, newest_first=True), params)
    if params.get("lookup_keys"):
        rows = [row for row in rows if row["lookup_key"] in params["lookup_keys"]]
    for name in ("currency", "product", "type"):
        if params.get(name):
            rows = [row for row in rows if row[name] == params[name]]
    wanted = params.get("recurring") or {}
    rows = [row for row in rows if all((row["recurring"] or {}).get(name) == value for name, value in wanted.items())]
    return page(ctx, within(rows, params.get("created")), params)


def _active(rows: list[Obj], params: dict[str, Any]) -> list[Obj]:
    wanted = params.get("active")
    return rows if wanted is None else [row for row in rows if row["active"] == wanted]


def _update(ctx: Context, kind: str, params: dict[str, Any], names: tuple[str, ...]) -> Obj:
    found = ctx.need(kind)
    old = dict(found)
    found |= {name: params[name] for name in names if name in params}
    if "metadata" in params:
        found["metadata"] = merged(found["metadata"], params["metadata"])
    before = {name: value for name, value in old.items() if found[name] != value}
    if before:
        if "updated" in found:
            found["updated"] = ctx.now_s
        ctx.db.put(kind, found)
        ctx.emit(f"{kind}.updated", found, before)
    return found


def _check(ctx: Context, params: dict[str, Any]) -> None:
    """Raises ApiError 400 for a price that does not hold together."""
    recurring = params.get("recurring") or {}
    if recurring.get("usage_type") == "metered" and not recurring.get("meter"):
        told = "A price with `recurring[usage_type]=metered` must be backed by a meter: pass `recurring[meter]`."
        raise ApiError(told, param="recurring[meter]")
    if recurring.get("meter"):
        meter = ctx.need("billing.meter", recurring["meter"], param="recurring[meter]")
        if recurring.get("usage_type") != "metered" or meter["status"] != "active":
            raise ApiError("A meter needs a metered price, and has to be active.", param="recurring[meter]")
    tiered = params.get("billing_scheme") == "tiered"
    amounts = [name for name in ("unit_amount", "unit_amount_decimal") if params.get(name) is not None]
    if tiered != bool(params.get("tiers")) or tiered != bool(params.get("tiers_mode")):
        raise ApiError(
            "`billing_scheme=tiered` goes with `tiers` and `tiers_mode`, and nothing else does.", param="tiers"
        )
    if len(amounts) != (0 if tiered else 1):
        told = "A price per unit has one of `unit_amount` and `unit_amount_decimal`; a tiered one has neither."
        raise ApiError(told, code="parameter_missing", param="unit_amount")
    if tiered:
        _check_tiers(params)


def _check_tiers(params: dict[str, Any]) -> None:
    if params.get("transform_quantity"):
        raise ApiError("Tiers and transform_quantity do not go together.", param="transform_quantity")
    ends = [tier["up_to"] for tier in params["tiers"]]
    if ends[-1] != "inf" or "inf" in ends[:-1] or ends[:-1] != sorted(set(ends[:-1])):
        raise ApiError("Tiers have to ascend, and the last one has to be up to `inf`.", param="tiers")


def _lookup_key(ctx: Context, params: dict[str, Any]) -> str | None:
    """The key, taken from another price where that was asked for. Raises ApiError 400 where it is another's."""
    key = params.get("lookup_key")
    for other in ctx.db.all(PRICE) if key else ():
        if other["lookup_key"] == key and other["id"] != next(reversed(ctx.ids.values()), None):
            if not params.get("transfer_lookup_key"):
                told = f"A price (`{other['id']}`) already uses that lookup key."
                raise ApiError(told, code="resource_already_exists", param="lookup_key")
            other["lookup_key"] = None
            ctx.db.put(PRICE, other)
            ctx.emit("price.updated", other, {"lookup_key": key})
    return None if key is None else str(key)


def _recurring(told: dict[str, Any] | None) -> Obj | None:
    if not told:
        return None
    return {
        "interval": told["interval"],
        "interval_count": told.get("interval_count") or 1,
        "meter": told.get("meter"),
        "trial_period_days": None,
        "usage_type": told.get("usage_type") or "licensed",
    }


def _tier(told: dict[str, Any]) -> Obj:
    return {
        **_amounts("flat_amount", told.get("flat_amount"), told.get("flat_amount_decimal")),
        **_amounts("unit_amount", told.get("unit_amount"), told.get("unit_amount_decimal")),
        "up_to": None if told["up_to"] == "inf" else told["up_to"],
    }


def _amounts(name: str, whole: int | None, exact: str | None) -> Obj:
    """An amount both ways: the whole number only where it is one."""
    if exact is None:
        return {name: whole, f"{name}_decimal": None if whole is None else str(whole)}
    value = Fraction(exact)
    return {name: int(value) if value.denominator == 1 else None, f"{name}_decimal": exact}


_TIER: Final = Fields(
    up_to=Need(Either(OneOf("inf"), Whole(least=1))),
    flat_amount=COUNT,
    flat_amount_decimal=DECIMAL,
    unit_amount=COUNT,
    unit_amount_decimal=DECIMAL,
)
_RECURRING: Final = Fields(
    interval=Need(OneOf("day", "week", "month", "year")),
    interval_count=Whole(1, 36),
    meter=TEXT,
    usage_type=OneOf("licensed", "metered"),
    **unbuilt("trial_period_days"),
)
_PRICE: Final[dict[str, Field]] = {
    "active": FLAG,
    "lookup_key": Text(200),
    "metadata": METADATA,
    "nickname": TEXT,
    "tax_behavior": OneOf("exclusive", "inclusive", "unspecified"),
    "transfer_lookup_key": FLAG,
    **unbuilt("currency_options"),
}
_PRODUCT: Final[dict[str, Field]] = {
    "active": FLAG,
    "description": TEXT,
    "metadata": METADATA,
    **unbuilt("images marketing_features package_dimensions shippable statement_descriptor tax_code tax_details"),
    **unbuilt("unit_label url"),
}

ROUTES: Final = (
    Route(
        "POST",
        "/v1/products",
        create_product,
        Fields(_PRODUCT, id=TEXT, name=Need(TEXT), **unbuilt("default_price_data type")),
    ),
    Route("GET", "/v1/products/{id}", retrieve_product),
    Route("POST", "/v1/products/{id}", update_product, Fields(_PRODUCT, name=TEXT, **unbuilt("default_price"))),
    Route(
        "GET",
        "/v1/products",
        list_products,
        Fields(LIST, active=FLAG, created=CREATED, ids=Many(TEXT), **unbuilt("shippable type url")),
    ),
    Route(
        "POST",
        "/v1/prices",
        create_price,
        Fields(
            _PRICE,
            billing_scheme=OneOf("per_unit", "tiered"),
            currency=Need(Text(3)),
            product=Need(TEXT),
            recurring=_RECURRING,
            tiers=Many(_TIER, 100),
            tiers_mode=OneOf("graduated", "volume"),
            transform_quantity=Fields(divide_by=Need(Whole(least=1)), round=Need(OneOf("up", "down"))),
            unit_amount=COUNT,
            unit_amount_decimal=DECIMAL,
            **unbuilt("custom_unit_amount product_data"),
        ),
    ),
    Route("GET", "/v1/prices/{price}", retrieve_price),
    Route("POST", "/v1/prices/{price}", update_price, Fields(_PRICE)),
    Route(
        "GET",
        "/v1/prices",
        list_prices,
        Fields(
            LIST,
            active=FLAG,
            created=CREATED,
            currency=TEXT,
            lookup_keys=Many(TEXT, 10),
            product=TEXT,
            recurring=Fields(interval=TEXT, meter=TEXT, usage_type=TEXT),
            type=OneOf("one_time", "recurring"),
        ),
    ),
)
