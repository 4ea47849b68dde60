"""The log as people see it: events as JSON, pages of them, and streams of them."""
