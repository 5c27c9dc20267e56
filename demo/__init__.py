"""The shop under an outage, end to end: its upstream services, its traffic, its verdict."""
