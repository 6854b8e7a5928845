"""Rows of stars in SQLite or PostgreSQL."""
