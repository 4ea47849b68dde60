"""HTTP: from bytes on the wire to a request, and from a result to an answer."""
