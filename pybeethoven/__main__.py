"""`python -m pybeethoven` is the command `pybeethoven`."""

from pybeethoven.cli import main

main()
