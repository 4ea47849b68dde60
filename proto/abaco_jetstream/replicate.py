"""``python -m abaco_jetstream.replicate ADDRESS REPLICAS``: set the replicas of all streams.

ADDRESS is a server of the cluster, with a user that may change streams. The services may run.
"""

import asyncio
import sys

import nats

from abaco_jetstream.connection.addresses import addresses
from abaco_jetstream.stream_setup import set_replicas

TIMEOUT_SECONDS = 10.0


async def main(url: str, replicas: int) -> None:
    """Set the number of replicas, and print which streams were changed."""
    client = await nats.connect(addresses(url), connect_timeout=2, allow_reconnect=False)
    try:
        changed = await set_replicas(client.jetstream(timeout=TIMEOUT_SECONDS), replicas)
    finally:
        await client.close()
    for name in changed:
        sys.stdout.write(f"{name} is on {replicas} servers now\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
