"""Work on many stars: reading what users have, ingest, export, backup, reindex."""
