"""The SDK: one synchronous :class:`Client`.

    >>> from kaos_hub import Client
    >>> client = Client()
    >>> notebook = client.notebooks.deploy(source="notebook/example", data="mnist/data")
    >>> notebook.wait().url
    >>> training = client.trainings.deploy(source="mnist", params={"degree": [3, 5]})
    >>> training.wait().best

In a notebook of kaos_hub, and after ``kaos login`` or ``kaos up``, it needs no arguments.
"""

from kaos_hub.client.client import Client, find_credentials
from kaos_hub.client.login import login, login_with_token
from kaos_hub.client.models import ModelHandle
from kaos_hub.client.notebook_handle import NotebookHandle
from kaos_hub.client.notebooks import name_beside, notebook_name_from
from kaos_hub.client.training_handle import TrainingHandle
from kaos_hub.transport.credentials import (
    Credentials,
    forget_credentials,
    load_credentials,
    save_credentials,
    save_workspace,
)

__all__ = [
    "Client",
    "Credentials",
    "ModelHandle",
    "NotebookHandle",
    "TrainingHandle",
    "find_credentials",
    "forget_credentials",
    "load_credentials",
    "login",
    "login_with_token",
    "name_beside",
    "notebook_name_from",
    "save_credentials",
    "save_workspace",
]
