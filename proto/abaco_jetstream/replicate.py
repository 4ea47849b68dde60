"""An operator's command: ``python -m abaco_jetstream.replicate ADDRESS REPLICAS``.

It puts the streams on that many servers of the cluster at ADDRESS, whose user must be allowed to
change streams. Nobody has to stop working for it.
"""

import asyncio
import sys

import nats

from abaco_jetstream.addresses import addresses
from abaco_jetstream.stream_setup import replicate

TIMEOUT_SECONDS = 10.0


async def main(url: str, replicas: int) -> None:
    """Raise, or lower, the number of replicas, and say what was done."""
    client = await nats.connect(addresses(url), connect_timeout=2, allow_reconnect=False)
    try:
        changed = await replicate(client.jetstream(timeout=TIMEOUT_SECONDS), replicas)
    finally:
        await client.close()
    for name in changed:
        sys.stdout.write(f"{name} is on {replicas} servers now\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
