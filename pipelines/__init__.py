"""The DAG and what runs it: runner, fingerprints and resume, Ray, MLflow tracking, the command line."""
