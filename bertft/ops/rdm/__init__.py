"""Correlations of dissimilarity matrices."""
