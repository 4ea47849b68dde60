"""The connection to NATS: requests, retries, failover between servers, and its log lines."""
