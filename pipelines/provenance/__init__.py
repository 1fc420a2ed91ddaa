"""`pairmill why`: what the artifacts of a workspace hold on one sample."""
