"""Access: who sends a request, and what that principal may do."""
