"""What several stages do to pictures."""
