"""The contract every Trunkline process speaks on the bus.

What belongs here: typed ids, subjects, message structs, the media frame, the agent file's types and the codec.
What does not: any I/O, clock, environment, log, or knowledge of NATS. Depends on msgspec alone.

Evolution rules stand in this distribution's README.
"""
