"""For development: a real nats-server or a cluster of them, Twilio's side of a call, and a bad line for either.

What belongs here: the far ends of our wires, run or spoken for real, so that nothing of ours is ever mocked. What does
not: anything a service needs in production; no service imports this.
"""
