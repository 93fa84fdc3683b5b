"""Records of a run: rows, intervals, tensors, locks, stages."""
