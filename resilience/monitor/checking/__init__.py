"""What `resilience check` finds in an app before it fails in production."""
