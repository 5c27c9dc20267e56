"""What operators see of an app: its status, and listeners that report its events elsewhere."""
