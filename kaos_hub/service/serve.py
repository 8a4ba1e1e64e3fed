"""``python -m kaos_hub.service.serve``: the service itself, without anybody watching over it."""

import sys

from kaos_hub.service.app import main

if __name__ == "__main__":
    sys.exit(main())
