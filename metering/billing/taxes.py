"""Tax that Stripe works out and adds in a checkout: https://docs.stripe.com/tax/checkout.

It depends on where the payer is. Ours are customers that exist already and have no address yet, so the one that they
type in has to be kept with them: Stripe refuses a checkout with tax otherwise. A subscription that such a checkout
makes is taxed on every later invoice, usage included. https://docs.stripe.com/api/checkout/sessions/create
"""

from metering.billing.gateway import Params


def tax_params(*, wanted: bool) -> Params:
    """What a checkout asks for where tax is wanted, else nothing."""
    return {"automatic_tax": {"enabled": True}, "customer_update": {"address": "auto"}} if wanted else {}
