"""Asks, answers and the `Operation` declarations, one file per noun."""
