"""Subscriptions of actors: each matching event becomes one message in an inbox."""
