"""What all architectures share; `config`, `errors` and `spec` import no torch."""
