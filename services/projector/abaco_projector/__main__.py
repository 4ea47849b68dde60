"""The projector process: ``python -m abaco_projector``, configured by ``ABACO_*`` variables."""

import asyncio
import os
import sys

from abaco_projector.app import event_loop_runner
from abaco_projector.app.projection_loop import run
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import settings
from abaco_proto.errors import Malformed, Refused
from abaco_telemetry import log_format
from abaco_telemetry.context import Spans, create_spans
from abaco_telemetry.shutdown import on_signal

USAGE_ERROR = 2


def main() -> int:
    """Run until SIGTERM or SIGINT. Return the exit status: 2 if a setting or the database is
    wrong.
    """
    try:
        config = settings.read(ProjectorSettings, os.environ)
        log_format.configure_logging(
            "projector", level=config.log_level, log_format=config.log_format
        )
        tracing = create_spans("abaco-projector", os.environ)
        event_loop_runner.run(_run(config, tracing))
        tracing.close()
    except (Malformed, Refused) as error:
        sys.stderr.write(f"abaco-projector: {error}\n")
        return USAGE_ERROR
    return 0


async def _run(config: ProjectorSettings, tracing: Spans) -> None:
    stop = asyncio.Event()
    on_signal(stop.set)
    await run(config, stop, tracing)


if __name__ == "__main__":
    sys.exit(main())
