"""Words that fine-tuning moved."""
