"""One side of a book in sorted blocks; for the native modules only."""
