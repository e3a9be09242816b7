"""Schedules: when they are due, and making jobs of their due times."""
