"""`python -m marfast`."""

from marfast.cli import main

main()
