"""Alembic migrations of the journal's schema."""
