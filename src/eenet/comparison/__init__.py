"""Comparing policies at equal cost, with paired intervals."""
