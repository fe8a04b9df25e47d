"""`python -m calql`."""

from calql.cli import main

main()
