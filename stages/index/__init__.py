"""One table of everything measured over all sources, and which of its images show the same picture."""
