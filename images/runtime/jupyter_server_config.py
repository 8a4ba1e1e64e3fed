"""What every Jupyter server of the runtime does, however it was started."""

import os

from kaos_hub.inside import kernels, variables

# From here on the server's environment is the image's again: for kernels of any kind and terminals.
variables.restore(os.environ)
kernels.prepare(os.environ)

c = get_config()  # noqa: F821
c.ServerApp.kernel_spec_manager_class = "kaos_hub.inside.kernelspecs.ImageKernelSpecs"
# Not a login shell: /etc/profile would throw the image's PATH away.
c.ServerApp.terminado_settings = {"shell_command": variables.shell(os.environ)}
# The runtime is read-only, and its updates are not the user's concern.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
