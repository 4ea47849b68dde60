"""The metrics of the api."""

from collections.abc import Generator
from contextlib import contextmanager

from abaco_proto.errors import Unavailable
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry


class ApiMetrics:
    """All metrics of one api process."""

    def __init__(self) -> None:
        """All metrics are at zero."""
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        self.requests = self.registry.histogram(
            "abaco_http_request_seconds",
            "Seconds until the response to a request began.",
            *("method", "route", "status"),
        )
        self.in_flight = self.registry.gauge(
            "abaco_http_requests_in_flight", "Requests whose response is not complete."
        )
        self.readers = self.registry.gauge("abaco_output_readers", "Readers of live output.")
        self.subscribers = self.registry.gauge(
            "abaco_event_subscribers", "Clients with a stream of events."
        )
        self.refusals = self.registry.counter(
            "abaco_access_refusals",
            "Requests that were refused for want of a valid credential or of rights.",
            "reason",
        )
        self.chains_cut = 0
        self.registry.collected_counter(
            "abaco_chains_cut",
            "Events that were not delivered because their chain of subscriptions is too long.",
            lambda: self.chains_cut,
        )
        self.queries = self.registry.histogram(
            "abaco_query_seconds", "Seconds that queries of Postgres took, with the network."
        )
        self.query_failures = self.registry.counter(
            "abaco_query_failures", "Queries that Postgres did not answer in time."
        )

    @contextmanager
    def query(self) -> Generator[None, None, None]:
        """Measure a query, and count it if Postgres is unavailable."""
        with self.queries.time(), self.query_failures.count_exceptions(Unavailable):
            yield
