"""The worker side."""
