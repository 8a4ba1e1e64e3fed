"""``python -m kaos_hub.service.serve``: the service itself, without a process that watches it."""

from kaos_hub.service.app import main
from kaos_hub.service.process import leave

if __name__ == "__main__":
    leave(main())
