"""These tests install other people's software from the package indexes, so they run when asked for: `make interop`."""

import os

collect_ignore_glob = [] if os.environ.get("GYMRAIL_INTEROP") == "1" else ["test_*.py"]
