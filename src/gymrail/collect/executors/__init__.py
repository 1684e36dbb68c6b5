"""Rollouts played by several processes, on this machine or on a Ray cluster; see `executors.pool`."""
