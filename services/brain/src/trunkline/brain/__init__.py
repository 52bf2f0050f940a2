"""Thinks: the conversation, language models and tools."""
