"""The shop's databases: a PostgreSQL primary, its streaming replica, the link between them."""
