"""What a training run needs and how long it takes, computed before it starts: `pairmill plan`, the capacity check."""
