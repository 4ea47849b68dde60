"""The projection of the log, and its loop."""
