"""What the service does with stars, without HTTP: embed, search, recast."""
