"""The embedded one-machine stack: NATS, Postgres and the four services under one supervisor."""
