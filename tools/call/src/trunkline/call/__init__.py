"""A simulated caller with a scenario and a verdict."""
