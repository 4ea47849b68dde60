"""HTTP: the server, the middleware, and the forms of requests and responses."""
