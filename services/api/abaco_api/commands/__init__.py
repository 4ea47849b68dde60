"""Commands: a request leads to events in the log, or to an error."""
