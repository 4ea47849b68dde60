"""Postgres: session, read models, migrations and SQL."""
