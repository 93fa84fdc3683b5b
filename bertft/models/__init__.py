"""Encoders, their heads and their training."""
