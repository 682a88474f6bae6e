"""The command `homebody`, as `python -m homebody`."""

from homebody.cli import main

main(prog_name="homebody")
