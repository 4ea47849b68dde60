"""The process: ``python -m abaco_api``, configured by ``ABACO_*`` variables."""

import gc
import os
import sys

import uvloop

from abaco_api.api_settings import ApiSettings
from abaco_api.http.server import run
from abaco_proto import settings
from abaco_proto.errors import Malformed
from abaco_telemetry import log_format
from abaco_telemetry.context import create_spans

USAGE = 2
YOUNG_OBJECTS = 10_000
"""The collector looks for cycles after so many new objects. A request makes hundreds of objects,
few in cycles; with Python's default of 700 the collector would run every few requests.
"""


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 2 for an invalid setting."""
    try:
        api_settings = settings.read(ApiSettings, os.environ)
        log_format.configure_logging(
            "api", level=api_settings.log_level, log_format=api_settings.log_format
        )
        process_spans = create_spans("abaco-api", os.environ)
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        uvloop.run(run(api_settings, process_spans))
        process_spans.close()
    except Malformed as error:
        sys.stderr.write(f"abaco-api: {error}\n")
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
