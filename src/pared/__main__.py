"""`python -m pared` is `pared`."""

from pared.cli import main

main()
