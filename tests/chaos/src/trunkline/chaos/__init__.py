"""Proof by damage: calls are held while parts of the deployment are killed, and what became of every word is counted.

What belongs here: an agent whose words can be read back from a recording, callers who know what they are to hear, the
faults, and the checker that compares. What does not: anything that would make a fault less harmful. It reads journals,
recordings and facts only after they were written; nothing here helps a service to survive.
"""
