"""Fine-tuning of an encoder on one task."""
