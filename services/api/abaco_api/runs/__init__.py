"""What can be asked of one run of the past: again, compared, and why."""
