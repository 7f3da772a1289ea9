"""How the world asks: the raw front, the one route table and its handlers."""
