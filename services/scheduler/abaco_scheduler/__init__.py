"""The scheduler: folds the log into the cluster's state, plans, and appends the decisions."""
