"""The worker process around the domain: its loop, the host, its workers and its metrics."""
