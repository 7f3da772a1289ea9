"""Where payers may be sent back to by Stripe's pages: to the front end and to this service alone."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from metering.api.bodies import fault, invalid

_PORTS: Final = {"http": 80, "https": 443}


def checked_url(name: str, url: str, origins: Iterable[str]) -> str:
    """The address in the field `name`, which has to be at one of `origins`. Raises Invalid."""
    if _origin(url) not in {_origin(one) for one in origins}:
        told = f"it is at none of {', '.join(origins)}"
        raise invalid([fault(f"/{name}", "url-not-allowed", told)])
    return url


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; None for what browsers and this parser might read in two ways."""
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in " \\<>\"'"):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port
