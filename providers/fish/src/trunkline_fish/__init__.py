"""Fish Audio voices for Trunkline."""
