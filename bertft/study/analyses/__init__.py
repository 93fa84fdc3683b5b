"""Analyses a study may ask for, one per file."""
