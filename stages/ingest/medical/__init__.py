"""The medical source: private images and their reports, de-identified as they are read."""
