"""The projector: folds the log into read models in Postgres. It appends no events."""
