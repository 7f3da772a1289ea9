"""Who pays for an organisation: its customer at Stripe, made when it first buys."""

from typing import Protocol

from metering.billing.gateway import Params, StripeObject
from metering.billing.sales import DATASET_TAG
from metering.billing.subscriptions import ORG_TAG
from metering.billing.waiting import once
from metering.store.org import Org


class Registrar(Protocol):
    """The verb of Stripe that it takes: see `metering.billing.gateway`."""

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        ...


async def buyer_of(org: Org, registrar: Registrar, dataset_id: str) -> str:
    """The customer of an organisation; of one that has none it is made once, however often it is asked for in a day.

    Raises GatewayErrors.
    """
    if org.profile.stripe_customer_id:
        return org.profile.stripe_customer_id
    params = {"metadata": {ORG_TAG: org.org_id, DATASET_TAG: dataset_id}, "description": org.org_id}
    made = await once(registrar.create_customer, params, f"customer:{dataset_id}:{org.org_id}")
    return str(made["id"])
