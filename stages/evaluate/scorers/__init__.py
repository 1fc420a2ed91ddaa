"""One scorer per kind of benchmark, from what readers return to figures: for `pairmill score` and the stage."""
