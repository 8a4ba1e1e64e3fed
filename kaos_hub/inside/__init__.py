"""What runs in a notebook: its start, its working copy, its kernel, and the server extension."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    # Jupyter asks for this by name: `jpserver_extensions = {"kaos_hub.inside": True}` works.
    return [{"module": "kaos_hub.inside.extension"}]
