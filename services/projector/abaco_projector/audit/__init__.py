"""Verify, rebuild, replay, export and restore: the use cases of auditors."""
