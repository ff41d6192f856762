"""Levels from rows of three integers; for the native modules only."""
