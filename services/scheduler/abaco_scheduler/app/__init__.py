"""The scheduler process around the domain: its loop, its snapshots and its metrics."""
