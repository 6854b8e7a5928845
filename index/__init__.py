"""Where embedded stars are kept and searched."""
