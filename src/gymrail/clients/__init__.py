"""Clients: environments and tool servers that run somewhere else."""
