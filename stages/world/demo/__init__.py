"""The demonstration's world: coloured shapes, photographs, scans, and the web's usual faults planted among them."""
