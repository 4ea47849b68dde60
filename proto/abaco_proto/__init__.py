"""The contract: events, subjects, ids, aggregates, streams, permissions and settings.

A module belongs here only if a service written in another language needs its content to take part.
"""
