"""Terminates carrier media sockets and owns the call."""
