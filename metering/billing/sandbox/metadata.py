"""Metadata: https://docs.stripe.com/api/metadata."""

from collections.abc import Mapping
from typing import Final

from metering.billing.sandbox.errors import ApiError

KEYS_MAX: Final = 50
_KEY_MAX: Final = 40
_TEXT_MAX: Final = 500


def merged(old: Mapping[str, str], new: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata after an update: an empty text takes one out, None all. Raises ApiError 400 above Stripe's limits."""
    if new is None:
        return {}
    found = {name: text for name, text in {**old, **new}.items() if text != ""}
    if len(found) > KEYS_MAX:
        raise ApiError(f"Metadata can have at most {KEYS_MAX} keys.", param="metadata")
    for name, text in found.items():
        if len(name) > _KEY_MAX or len(text) > _TEXT_MAX:
            told = f"Metadata names have at most {_KEY_MAX} characters, values at most {_TEXT_MAX}."
            raise ApiError(told, param=f"metadata[{name[:_KEY_MAX]}]")
    return found
