"""Agents: the loops that play an episode."""
