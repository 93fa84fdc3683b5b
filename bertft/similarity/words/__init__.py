"""Which words moved."""
