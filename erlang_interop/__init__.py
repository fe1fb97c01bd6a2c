"""The BEAM side of tests and demo: our stand-in for a Beethoven node, and what starts it."""
