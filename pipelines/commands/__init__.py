"""One module per `pairmill` command; each has `main(arguments)`."""
