"""The trunkline command: dev, call, demo, tail, events."""
