"""The process: ``python -m abaco_api``, configured by ``ABACO_*`` variables."""

import gc
import os
import sys

import uvloop

from abaco_api.api_settings import ApiSettings
from abaco_api.http.server import run
from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_telemetry import log_format, spans

USAGE = 2
YOUNG_OBJECTS = 10_000
"""So many more than before make the collector look for cycles. A request makes hundreds, hardly any
in a cycle; after Python's own 700 it would look through all that is under way, every few requests.
"""


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 2 for what a person must change."""
    try:
        config = settings.read(ApiSettings, os.environ)
        log_format.configure_logging("api", level=config.log_level, log_format=config.log_format)
        telling = spans.create_spans("abaco-api", os.environ)
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        uvloop.run(run(config, telling))
        telling.close()
    except Malformed as error:
        sys.stderr.write(f"abaco-api: {error}\n")
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
