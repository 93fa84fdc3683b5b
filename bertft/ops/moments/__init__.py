"""Sums over stimuli and the measures that follow from them."""
