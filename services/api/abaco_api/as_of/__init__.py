"""Time travel: the read models as they were, folded from the log."""
