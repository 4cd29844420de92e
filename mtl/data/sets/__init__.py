"""Named data sets: what packages carry, what is found where packages put it, and what is drawn."""
