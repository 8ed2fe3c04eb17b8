"""Ours beside what others would take: each in an environment of its own, called in turn on the same audio."""
