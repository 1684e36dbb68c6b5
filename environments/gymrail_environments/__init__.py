"""Gymrail's environments, one folder each."""
