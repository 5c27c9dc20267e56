"""What lets people see how an app degrades; imported only by those who ask."""
