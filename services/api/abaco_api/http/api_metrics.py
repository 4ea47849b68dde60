"""What the api counts."""

from collections.abc import Generator
from contextlib import contextmanager

from abaco_proto.errors import Unavailable
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry


class Metrics:
    """All metrics of one api process."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        self.requests = self.registry.histogram(
            "abaco_http_request_seconds",
            "Time until the answer to a request began.",
            *("method", "route", "status"),
        )
        self.in_flight = self.registry.gauge(
            "abaco_http_requests_in_flight", "Requests whose answer is not complete."
        )
        self.readers = self.registry.gauge("abaco_output_readers", "Readers of live output.")
        self.subscribers = self.registry.gauge(
            "abaco_event_subscribers", "Clients that the log is streamed to."
        )
        self.cut = 0
        self.registry.collected_counter(
            "abaco_chains_cut",
            "Events that became no message: too many subscriptions lay behind them.",
            lambda: self.cut,
        )
        self.queries = self.registry.histogram(
            "abaco_query_seconds", "Time that queries took in Postgres, the way there included."
        )
        self.query_failures = self.registry.counter(
            "abaco_query_failures", "Queries that Postgres did not answer in time."
        )

    @contextmanager
    def query(self) -> Generator[None, None, None]:
        """Count what is asked of Postgres inside."""
        with self.queries.time(), self.query_failures.count_exceptions(Unavailable):
            yield
