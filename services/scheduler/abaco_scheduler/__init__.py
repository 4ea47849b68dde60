"""The scheduler: folds the log to what is, computes what should be, appends the difference."""
