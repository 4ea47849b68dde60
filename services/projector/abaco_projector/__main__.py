"""The process: ``python -m abaco_projector``, configured by ``ABACO_*`` variables."""

import asyncio
import os
import signal
import sys

from abaco_projector.app import event_loop_runner as running
from abaco_projector.app.projection_loop import run
from abaco_projector.projector_settings import Config
from abaco_proto import settings
from abaco_proto.errors import Malformed, Refused
from abaco_telemetry import lines, spans
from abaco_telemetry.spans import Spans

USAGE = 2


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 2 for what a person must change."""
    try:
        config = settings.read(Config, os.environ)
        lines.log("projector", level=config.log_level, form=config.log_format)
        telling = spans.spans("abaco-projector", os.environ)
        running.run(_run(config, telling))
        telling.close()
    except (Malformed, Refused) as error:
        sys.stderr.write(f"abaco-projector: {error}\n")
        return USAGE
    return 0


async def _run(config: Config, telling: Spans) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(config, stop, telling)


if __name__ == "__main__":
    sys.exit(main())
