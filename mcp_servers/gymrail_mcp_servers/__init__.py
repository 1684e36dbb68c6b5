"""Gymrail's tool servers, one folder each."""
