"""What can hear: one module per provider, imported when an agent first names it."""
