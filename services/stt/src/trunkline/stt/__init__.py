"""Hears: voice activity, endpointing, transcription."""
