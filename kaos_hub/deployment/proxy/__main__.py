"""``python -m kaos_hub.deployment.proxy``: the proxy by itself, where no Hub starts it."""

import sys

from kaos_hub.deployment.proxy import program
from kaos_hub.errors import KaosError
from kaos_hub.installation.addresses import namespace


def main() -> int:
    """Become the proxy; whatever keeps it from starting is one line on stderr and exit code 1."""
    where = namespace()
    try:
        if where is None:
            raise KaosError("KAOS_NAMESPACE is not set; on one machine the Hub starts the proxy.")
        program.run_in_cluster(where)
    except KaosError as e:
        print(f"kaos proxy: {e.message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
