"""``python -m bertft``."""

from bertft.cli.main import main

if __name__ == "__main__":
    main()
