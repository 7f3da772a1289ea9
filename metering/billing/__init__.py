"""How the service is paid: overage out to Stripe, Stripe's word in. Nothing here is on the walk of a usage event."""
