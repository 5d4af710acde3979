"""``python -m esx``."""

from esx.cli.main import main

main()
