"""The default catalogue with packages of credits."""

from pathlib import Path
from typing import Final

CATALOGUE: Final = Path(__file__).parents[2] / "plans" / "catalogs" / "scorpius.toml"

PACKAGES: Final = """
[[credit_packages]]
credits = 100
price_minor = 1000

[[credit_packages]]
credits = 500
price_minor = 4500
"""


def with_packages(folder: Path) -> str:
    """A file of it in a folder: a scan takes a credit."""
    sold = CATALOGUE.read_text(encoding="utf-8").replace("[features.scans]\n", "[features.scans]\ncredits = 1\n")
    made = folder / "with_packages.toml"
    made.write_text(f"{sold}{PACKAGES}", encoding="utf-8")
    return str(made)
