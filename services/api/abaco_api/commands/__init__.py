"""Commands: what a request asks for becomes events in the log, or an error."""
