"""`pairmill why`: everything the artifacts of a workspace say of one sample."""
