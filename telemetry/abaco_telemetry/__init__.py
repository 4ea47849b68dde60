"""How a service tells of itself: metrics, log lines and spans. It knows of no service.

A library like those from the index, but ours (docs/adr/0038): a service hands it what it counts,
says and does, and it speaks the formats of Prometheus, of people, and of OpenTelemetry.
"""
