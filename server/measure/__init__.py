"""What this process counts and times, and how Prometheus gets to see it."""
