"""What the stack runs on: NATS, Postgres, the container engine, the machine."""
