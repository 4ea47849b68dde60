"""The platform under measurement."""
