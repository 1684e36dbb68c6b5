"""Environments and tool servers over HTTP and MCP. Needs the extra: pip install 'gymrail[serve]'."""
