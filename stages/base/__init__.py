"""The contract that every stage implements, and what several stages agree on."""
