"""Readers of corpus files, one per format."""
