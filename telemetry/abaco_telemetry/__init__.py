"""Metrics, log lines and traces of a service. It knows no service; see docs/adr/0038."""
