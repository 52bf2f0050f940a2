"""The ``trunkline`` command.

What belongs here: finding the bus, choosing a command, and telling people what is said on the bus. What does not: any
part of a call; ``dev``, ``call`` and ``demo`` live in distributions of their own.
"""
