"""MLflow tracking that can be lost without losing a run: events go to a spool, another process delivers them."""
