"""HTML without a script: everything that is shown is escaped, and every page says what this is."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import urlsplit

BANNER: Final = "SANDBOX: not Stripe, no money moves"

_STYLE: Final = """
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}
body{margin:0 auto;max-width:72rem;padding:0 1rem 3rem}
header{background:#7a4b00;color:#fff;font-weight:600;margin:0 -1rem 1rem;padding:.5rem 1rem}
h2{font-size:1.05rem;margin:2rem 0 .5rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #8886;padding:.3rem .6rem;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
form{display:inline-block;margin:.5rem .5rem 0 0}
button{font:inherit;padding:.5rem 1rem;cursor:pointer}
.bad{color:#c33;font-weight:600}
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


@dataclass(frozen=True, slots=True)
class Html:
    """Text that is markup already."""

    text: str


def text(value: object) -> Html:
    """Anything as escaped text; nothing for None."""
    return value if isinstance(value, Html) else Html("" if value is None else escape(str(value)))


def joined(*parts: object) -> Html:
    """Parts after each other."""
    return Html("".join(text(part).text for part in parts))


def tag(name: str, *parts: object) -> Html:
    """An element around the parts."""
    return Html(f"<{name}>{joined(*parts).text}</{name}>")


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table with a heading; numbers stand right. One without rows says so."""
    known = list(rows)
    if not known:
        return joined(tag("h2", title), tag("p", "None yet."))
    numbers = [isinstance(value, int) for value in known[0]]
    head = "".join(
        f'<th scope="col"{_mark(number)}>{escape(name)}</th>' for name, number in zip(heads, numbers, strict=True)
    )
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in known)
    whole = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return joined(tag("h2", title), Html(whole))


def button(action: str, label: str, **fields: str) -> Html:
    """A form of one button."""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )
    start = f'<form method="post" action="{escape(action)}">'
    return Html(f"{start}{hidden}<button>{escape(label)}</button></form>")


def link(address: str, label: str) -> Html:
    """A link; one that is no web address is text."""
    if urlsplit(address).scheme not in {"http", "https"}:
        return text(label)
    return Html(f'<a href="{escape(address)}">{escape(label)}</a>')


def page(title: str, *parts: object) -> bytes:
    """A whole page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f'<body><header role="note">{BANNER}</header><main><h1>{escape(title)}</h1>{joined(*parts).text}</main>'
        "</body></html>"
    ).encode()


def headers(*leads_to: str | None) -> dict[str, str]:
    """The headers of a page whose forms lead here, or on to these addresses: browsers look at redirects too."""
    origins = {f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, filter(None, leads_to)) if parts.netloc}
    allowed = " ".join(["'self'", *sorted(origins)])
    policy = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {allowed}; base-uri 'none'"
    return {
        "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def _mark(number: bool) -> str:
    return ' class="n"' if number else ""


def _cell(value: object) -> str:
    return f"<td{_mark(isinstance(value, int))}>{text(value).text}</td>"
