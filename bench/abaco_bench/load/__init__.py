"""What is sent to the platform, and what is measured meanwhile."""
