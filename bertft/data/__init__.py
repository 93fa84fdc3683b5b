"""Readers, examples and synthetic corpora."""
