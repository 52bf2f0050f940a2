"""The stand-in for stt."""

from standin import main

main("STANDIN_STT_PORT")
