"""Sums over stimuli, and statistics over all pairs from them."""
