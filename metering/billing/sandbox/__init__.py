"""A stand-in for Stripe that keeps state and speaks Stripe's HTTP to the same client. Never to be taken for Stripe."""
