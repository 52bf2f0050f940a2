"""The stand-in for events."""

from standin import main

main("STANDIN_EVENTS_PORT")
