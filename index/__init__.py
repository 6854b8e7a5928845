"""Where embedded stars are stored and searched."""
