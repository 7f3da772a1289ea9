"""What is agreed with one organisation otherwise than its plan says: read from a body, and shown."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from metering.api.bodies import Faults, fault, invalid
from metering.api.models.agreements import OverrideSetting, WindowSetting
from metering.api.models.orgs import OrgSettings
from metering.moments import parse_ms, rfc3339
from metering.store.org import Profile, override_entry
from plans.catalogue import KEEP, Override
from plans.limits import OnLimit
from plans.prices_file import TierTable, price_faults, pricing_of
from plans.subwindows import Per, SubWindow
from plans.tiers import PriceModel

KINDS: Final = ("limits", "on_limit", "windows")
"""Fields that set one thing of all features; `overrides` sets all of single ones."""


def refuse_faults(body: OrgSettings, now_ms: int) -> None:
    """Raises Invalid where overrides do not hold together, stand beside `limits`, or would be over already."""
    faults: Faults = []
    beside = sorted(body.model_fields_set.intersection(KINDS))
    if beside and "overrides" in body.model_fields_set:
        faults.append(fault("/overrides", "conflict", f"stands beside {', '.join(beside)}; give one of the two"))
    ends = [("/overrides_expire_at", body.overrides_expire_at)]
    for name, setting in body.overrides.items():
        if setting is not None:
            ends.append((f"/overrides/{name}/expires_at", setting.expires_at))
            faults += _price_faults(name, setting)
    for pointer, text in ends:
        if text is not None and parse_ms(text) <= now_ms:
            faults.append(fault(pointer, "not-in-the-future", f"it is {rfc3339(now_ms)} now; give a later instant"))
    if faults:
        raise invalid(faults)


def _price_faults(name: str, setting: OverrideSetting) -> Iterator[dict[str, str]]:
    """What a catalogue file would be told of the same price."""
    raw = setting.model_dump(exclude_unset=True)
    for path, reason, cure in price_faults(("overrides", name), raw):
        yield fault("/" + "/".join(path), "price", f"{reason}. {cure}")


def override_of(setting: OverrideSetting) -> Override:
    """The override that a body sets."""
    given = setting.model_fields_set
    tiers = [TierTable(**tier.model_dump()) for tier in setting.overage_tiers]
    model = PriceModel(setting.overage_model) if "overage_model" in given else None
    price = setting.overage_price_minor if "overage_price_minor" in given else None
    return Override(
        limit=setting.limit if "limit" in given else KEEP,
        on_limit=OnLimit(setting.on_limit) if "on_limit" in given else None,
        enabled=setting.enabled if "enabled" in given else None,
        windows=windows_of(setting.windows) if "windows" in given else None,
        pricing=pricing_of(model, tiers, price, setting.overage_per),
        until_ms=None if setting.expires_at is None else parse_ms(setting.expires_at),
    )


def windows_of(windows: Iterable[WindowSetting]) -> tuple[SubWindow, ...]:
    """The sub-windows that a body sets."""
    return tuple(SubWindow(window.limit, Per(window.per), window.rolling) for window in windows)


def agreed_view(profile: Profile) -> dict[str, Any]:
    """All of it as the wire shows it."""
    return {
        "price_minor": profile.price_minor,
        "price_expires_at": _moment(profile.price_until_ms),
        "rate_limit_expires_at": _moment(profile.rate_until_ms),
        "overrides": {name: override_view(override) for name, override in sorted(profile.overrides.items())},
    }


def override_view(override: Override) -> Mapping[str, Any]:
    """One override as it is kept, but for its end, which is told as a date."""
    kept = {name: value for name, value in override_entry(override).items() if name != "until_ms"}
    return kept | {"expires_at": _moment(override.until_ms)}


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
