"""All five services and an embedded NATS in one command.

What belongs here: starting, watching, replacing and stopping the processes of one machine, and showing their logs as
one. What does not: anything a service does; this package knows them as ``python -m`` modules with a health URL.
"""
