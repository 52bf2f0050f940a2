"""Speaks: text to audio, cancellable in mid-utterance."""
