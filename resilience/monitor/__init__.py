"""Listeners that show what happened elsewhere than in the log. Nothing is imported here."""
