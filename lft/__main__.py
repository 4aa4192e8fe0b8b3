"""``python -m lft`` is the command ``lft`` of this Python."""

from lft.cli import main

if __name__ == "__main__":
    main()
