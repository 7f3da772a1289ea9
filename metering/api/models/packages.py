"""Packages of credits on the wire."""

from pydantic import Field

from metering.api.models.fields import Answer


class PackageView(Answer):
    """So many credits for one price."""

    credits: int
    title: str
    price_minor: int = Field(description="In minor units of the currency.")
    price: str = Field(description="The same as people write it.")
    price_per_credit: str = Field(description="A decimal number of the currency's major unit.")
    discount_percent: int = Field(description="How much less a credit costs than in the smallest package.")


class PackageList(Answer):
    """The packages on sale, the smallest first; none where the catalogue sells no credits."""

    currency: str
    data: list[PackageView]


class OlderPackageList(Answer):
    """The same as clients of `/billing/credit-packages` read it."""

    currency: str
    packages: list[PackageView]
