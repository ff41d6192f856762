"""``python -m alphapulse.cli`` is the `alphapulse` command."""

from alphapulse.cli.app import main

main()
