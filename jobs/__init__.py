"""The reference service: a small shop that keeps serving while its upstreams fail."""
