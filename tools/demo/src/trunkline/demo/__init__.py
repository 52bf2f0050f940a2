"""A first call: run, watched, recorded and drawn."""
