"""The scorers of the `reasoning-gym` library: which items there are, and what an answer to one is worth."""
