"""The engine port on Docker's HTTP API. Only this package imports ``docker``.

Facts about the engine that are stated here were seen on Docker 20.10.
"""

from abaco_worker.docker_engine.engine import DockerEngine

__all__ = ["DockerEngine"]
