"""The catalogues that are shipped, and how one of them is chosen: by its name, or by the number it also goes by."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

DEFAULT: Final = "scorpius"

SHIPPED: Final[Mapping[str, str]] = {
    "usage-based": "pay as you grow by API requests, in euro: free, growth, scale, enterprise; packs of credits",
    "automation": "tokens, API calls and scraping tasks, blocked at the limit: basic, pro, enterprise",
    "scorpius": "scans, wallet checks and API requests, overage billed: free, professional, enterprise (the default)",
    "threatalytics": "API calls, blocked at the limit: free, starter, professional, enterprise",
    "unillm": "requests paid with credits from packages",
}
"""Each with what it sells."""

NUMBERED: Final[Mapping[str, str]] = {f"s{number}": name for number, name in enumerate(SHIPPED)}


def text_of(chosen: Path | None) -> tuple[str, str]:
    """A catalogue's text, and how it is called: by a name of those shipped, else by a path; None is the default.

    Raises OSError and UnicodeDecodeError where a file cannot be read.
    """
    asked = DEFAULT if chosen is None else str(chosen)
    name = NUMBERED.get(asked, asked)
    if name not in SHIPPED:
        return Path(asked).read_text(encoding="utf-8"), asked
    file = f"{name}.toml"
    return (resources.files("plans") / "catalogs" / file).read_text(encoding="utf-8"), file
