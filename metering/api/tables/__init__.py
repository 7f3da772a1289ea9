"""The route table, by noun. `routes` puts the parts together."""
