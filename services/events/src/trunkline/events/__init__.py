"""Delivers the facts of every call to those outside who wait for them: a file, a webhook.

What belongs here: sinks, their order, retries and signatures. What does not: what a fact means, how it came about, and
the stream itself, which is the bus library's.
"""
