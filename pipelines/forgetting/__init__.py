"""`pairmill forget`: samples leave every artifact of a workspace, for good, and the models that saw them are named."""
