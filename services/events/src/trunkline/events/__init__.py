"""Delivers the facts of every call, in order, to files and webhooks."""
