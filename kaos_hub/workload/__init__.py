"""Code that runs in containers: a notebook's start, working copy, kernels, extension; `fetch`."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    # Jupyter asks for this by name: `jpserver_extensions = {"kaos_hub.workload": True}` works.
    return [{"module": "kaos_hub.workload.notebook.extension"}]
