"""SQLAlchemy sessions that read from replicas and see their own writes."""
