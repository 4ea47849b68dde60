"""Commands and queries over HTTP: parse, decide, append, answer.

=====================  ===========================================================================
module                 is about
=====================  ===========================================================================
``body parse``         requests to commands; ``bodies`` describes what a body may hold
``decide definition``  commands to events, pure
``directory``          the fold of all actors' definitions, in memory
``commands inbox``     the shells that append under optimistic concurrency; ``turns`` orders them,
                       and ``lines`` what comes in a rush
``once``               requests with an idempotency key
``admission room``     what is turned away, and when
``queries views``      rows of the read models to answers; ``freshness`` waits for one's own writes
``routes app openapi`` the HTTP face
=====================  ===========================================================================
"""

from importlib.metadata import version

VERSION = version("abaco-api")
