"""Runs messages in containers on one host, and appends what happened to the log."""
