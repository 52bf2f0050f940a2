"""Ways to make speech. Each module is imported only when an agent asks for it."""
