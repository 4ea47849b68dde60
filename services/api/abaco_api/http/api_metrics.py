"""What the api counts."""

from collections.abc import Generator
from contextlib import contextmanager

from abaco_proto.errors import Unavailable
from abaco_telemetry.catalogue import Catalogue
from abaco_telemetry.event_log import LogMetrics


class Metrics:
    """All metrics of one api process."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.catalogue = Catalogue()
        self.log = LogMetrics(self.catalogue)
        self.requests = self.catalogue.histogram(
            "abaco_http_request_seconds",
            "Time until the answer to a request began.",
            *("method", "route", "status"),
        )
        self.in_flight = self.catalogue.gauge(
            "abaco_http_requests_in_flight", "Requests whose answer is not complete."
        )
        self.readers = self.catalogue.gauge("abaco_output_readers", "Readers of live output.")
        self.subscribers = self.catalogue.gauge(
            "abaco_event_subscribers", "Clients that the log is streamed to."
        )
        self.cut = 0
        self.catalogue.looked_up(
            "abaco_chains_cut",
            "Events that became no message: too many subscriptions lay behind them.",
            lambda: self.cut,
        )
        self.queries = self.catalogue.histogram(
            "abaco_query_seconds", "Time that queries took in Postgres, the way there included."
        )
        self.query_failures = self.catalogue.counter(
            "abaco_query_failures", "Queries that Postgres did not answer in time."
        )

    @contextmanager
    def query(self) -> Generator[None, None, None]:
        """Count what is asked of Postgres inside."""
        with self.queries.time(), self.query_failures.count_exceptions(Unavailable):
            yield
