"""The log as clients see it: events as JSON, pages of them, and streams of them."""
