"""How we remember: the only importer of redis."""
