"""``python -m kaos_hub.service``: how the Hub starts the service."""

import os
import sys

from kaos_hub.service import revive

if os.environ.get(revive.WORKER):
    from kaos_hub.service.app import main

    sys.exit(main())
sys.exit(revive.main())
