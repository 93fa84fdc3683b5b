"""Comparison of encoders on a stream of stimuli."""
