"""The process: ``python -m abaco_projector``, configured by ``ABACO_*`` variables."""

import asyncio
import logging
import os
import signal
import sys

from abaco_projector import running
from abaco_projector.config import Config
from abaco_projector.loop import run
from abaco_proto import settings
from abaco_proto.errors import Malformed, Refused

USAGE = 2


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status: 2 for what a person must change."""
    try:
        config = settings.read(Config, os.environ)
        logging.basicConfig(
            level=config.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        running.run(_run(config))
    except (Malformed, Refused) as error:
        sys.stderr.write(f"abaco-projector: {error}\n")
        return USAGE
    return 0


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(config, stop)


if __name__ == "__main__":
    sys.exit(main())
