"""Where the store lives, and where keys are fetched: URLs that are read once, checked before anything connects.

redis-py would take `redis://host` as database 0 and drop a path that is no number; the settings of this
service promise otherwise, so the database is worked out here and written into the URL.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

STORE_URL_DEFAULT: Final = "redis://localhost:6379"

_DRIVER_SCHEME: Final = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
}
"""Each scheme taken here, and the one the driver knows it by."""

SCHEMES: Final = tuple(_DRIVER_SCHEME)

_QUERY: Final = (
    *"db username password".split(),
    *"ssl_ca_certs ssl_ca_path ssl_certfile ssl_keyfile ssl_cert_reqs ssl_check_hostname".split(),
)
"""What may follow the ? in a URL. Time-outs and retries are the service's own: they hold its promises together."""

_PASSWORD: Final = re.compile(r"(//[^:/@?#]*:).*(@)|([?&]password=)[^&#]*", re.IGNORECASE)
"""Greedy up to the last @: a password with a slash or an @ of its own makes the URL wrong, and still a secret."""

_MASK: Final = "****"


class AddressError(ValueError):
    """A store URL that cannot be used. The text never repeats the URL, which may hold a password."""


@dataclass(frozen=True, slots=True)
class Address:
    """A store URL taken apart: `url` is ready for the driver and names the database it selects."""

    url: str
    database: int


def store_address(url: str, *, database: int) -> Address:
    """Check `url` and settle its database: the one in the URL, else `database`.

    Taken: redis, rediss, valkey, valkeys (host, port, path = database) and unix (path = socket, `?db=`).
    Raises AddressError with what is wrong.
    """
    parts = _split(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(query.keys() - _QUERY):
        raise AddressError(f"after the ? only {', '.join(_QUERY)} are taken, not {', '.join(unknown)}")
    named = query.pop("db", "")
    path = "" if parts.scheme == "unix" else unquote(parts.path).strip("/")
    number = _number(named or path, fallback=database)
    scheme = _DRIVER_SCHEME[parts.scheme]
    if scheme == "unix":
        return Address(f"unix://{parts.netloc}{parts.path}?{urlencode({**query, 'db': number})}", number)
    rebuilt = parts._replace(scheme=scheme, path=f"/{number}", query=urlencode(query), fragment="")
    return Address(urlunsplit(rebuilt), number)


def _split(url: str) -> SplitResult:
    """The parts of `url`; AddressError unless its scheme, place and port make sense."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressError("the host or port cannot be read; the port is a number up to 65535") from error
    if parts.scheme not in _DRIVER_SCHEME:
        raise AddressError(f"the scheme is none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.scheme == "unix":
        if not parts.path.strip("/") or parts.hostname:
            raise AddressError("unix:// is followed by the absolute path of a socket, as unix:///run/redis.sock")
    elif not parts.hostname or port == 0:
        raise AddressError("a host is missing, or the port is 0")
    return parts


def _number(text: str, *, fallback: int) -> int:
    """The database that `text` names, or `fallback` when it names none."""
    if not text:
        return fallback
    if not (text.isascii() and text.isdigit()):
        raise AddressError("the database (path or ?db=) is a number from 0 up")
    return int(text)


def keys_address(url: str) -> str:
    """`url` where keys may be fetched from it: https, or http on this machine; no credentials in it.

    Raises AddressError with what is wrong.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise AddressError("the host or port cannot be read; the port is a number up to 65535") from error
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise AddressError("it is not an https URL")
    if parts.scheme == "http" and not is_loopback(host):
        raise AddressError("plain http is taken on loopback only: whoever is in between could put in keys of their own")
    if "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressError("credentials, fragments, spaces and other than ASCII characters are not taken")
    return url


def is_loopback(host: str) -> bool:
    """Whether `host` is an address of this machine alone, or the name of one."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def masked_url(url: str) -> str:
    """`url` with every password in it replaced, fit to be printed. Works on malformed URLs too."""
    return _PASSWORD.sub(lambda m: f"{m[1]}{_MASK}{m[2]}" if m[1] else f"{m[3]}{_MASK}", url)
