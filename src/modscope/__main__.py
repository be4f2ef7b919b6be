"""`python -m modscope` is the command line."""

from modscope.cli import main

main()
