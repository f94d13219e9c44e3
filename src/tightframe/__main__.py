"""``python -m tightframe`` is the command ``tightframe``."""

from tightframe.cli import main

if __name__ == "__main__":
    main()
