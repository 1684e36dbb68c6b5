"""`python -m gymrail` is `gymrail`."""

from gymrail.cli import main

if __name__ == "__main__":
    main()
