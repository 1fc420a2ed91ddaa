"""Fine-tuning: a pretrained model on one task."""
