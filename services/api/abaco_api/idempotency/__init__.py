"""Requests with an ``Idempotency-Key``: executed once, however often they are sent."""
