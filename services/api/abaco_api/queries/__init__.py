"""Queries: the read models in Postgres, and how their rows become results."""
