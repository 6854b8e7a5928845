"""How alike two stars are."""
