"""Ways to find words. Each module is imported only when an agent asks for it."""
