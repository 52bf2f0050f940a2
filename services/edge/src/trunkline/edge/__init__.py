"""The edge: terminates carrier media sockets and owns the call.

What belongs here: the carriers' wire protocols, the playout ledger, agent files, webhooks, the assignment of workers
to a call and the end of it. What does not: anything about what is said.
"""
