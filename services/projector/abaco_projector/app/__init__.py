"""Use cases and loops."""
