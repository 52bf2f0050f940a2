"""The stand-in for edge."""

from standin import main

main("STANDIN_EDGE_PORT")
