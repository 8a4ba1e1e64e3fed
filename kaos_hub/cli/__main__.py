"""``python -m kaos_hub.cli`` is ``kaos``."""

from kaos_hub.cli import main

main()
