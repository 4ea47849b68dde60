"""The projector: folds the log into Postgres. It owns no event and decides nothing."""
