"""What every architecture shares; on its modules `config` and `errors` stages and pipelines stand, too."""
