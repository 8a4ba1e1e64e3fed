"""``python -m kaos_hub.service``: how the Hub starts the service."""

import sys

from kaos_hub.service.app import main

sys.exit(main())
