"""What stands behind the gateway: the real Stripe client."""
