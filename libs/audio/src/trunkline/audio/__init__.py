"""Telephone audio as bytes and samples: G.711, resampling, framing, levels and WAV.

What belongs here: arithmetic on samples, with numpy and soxr. What does not: calls, the bus, clocks, carriers, and
any idea of whose voice it is.
"""
