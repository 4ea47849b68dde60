"""Streams: events and output sent while they appear."""
