"""Billing on a real store, over a Stripe that holds objects."""
