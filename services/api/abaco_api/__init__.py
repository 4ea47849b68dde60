"""Commands and queries over HTTP.

=====================  =========================================================================
folder                 contents
=====================  =========================================================================
``http``               the server, the middleware, forms of requests and responses
``contract``           the OpenAPI and AsyncAPI descriptions, and the types that they are made from
``routes``             the operations, one resource per module
``commands``           parse, read a history, decide, append
``idempotency``        idempotency keys, and the index of those in the log
``domain``             decisions and rules, pure
``queries``            the read models, and how long a query waits for them
``as_of`` ``explain``  answers from history
``streams``            streams of events and of output
``subscriptions``      the dispatcher, which sends events to subscribed actors
=====================  =========================================================================
"""

from importlib.metadata import version

VERSION = version("abaco-api")
