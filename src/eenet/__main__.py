"""`python -m eenet` is the `eenet` command."""

from eenet.cli import main

if __name__ == "__main__":
    main()
