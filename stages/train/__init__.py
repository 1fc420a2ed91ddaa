"""The training engine that pretraining and fine-tuning share: Ray Train starts it, DeepSpeed runs in it."""
