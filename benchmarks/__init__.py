"""Benchmarks of AlphaPulse beside what one would use instead: ``python -m benchmarks``."""
