"""``python -m kaos_hub.service``: the command with which the Hub starts the service."""

import sys

from kaos_hub.service.watch import main

if __name__ == "__main__":
    sys.exit(main())
