"""Run the command ``lft`` as ``python -m lft``."""

from lft.cli import main

if __name__ == "__main__":
    main()
