"""The field's public file formats: read whole, with everything that is wrong with their entries named and counted."""
