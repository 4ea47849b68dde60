"""The embedded stack on one machine: NATS, Postgres and the four services under one supervisor."""
