"""What a run writes down: rows, intervals, kept tensors, locks, stages."""
