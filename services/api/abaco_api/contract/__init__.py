"""The published contract: operations, request and result types, OpenAPI and AsyncAPI."""
