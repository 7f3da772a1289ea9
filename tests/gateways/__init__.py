"""The live gateway, and what is held against the truth of Stripe."""
