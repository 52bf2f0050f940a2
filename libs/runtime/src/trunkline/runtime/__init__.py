"""The chassis of a process: life cycle, settings, health, logs, metrics, clock.

What belongs here: what every long-running process needs, whatever it does. What does not: calls, audio, the bus, or any
other word of telephony; readiness and statistics come in as callables.
"""
