"""`pairmill why`: what the artifacts of a workspace record about one sample."""
