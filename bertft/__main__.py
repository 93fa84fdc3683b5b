"""``python -m bertft``."""

from bertft.cli import main

if __name__ == "__main__":
    main()
