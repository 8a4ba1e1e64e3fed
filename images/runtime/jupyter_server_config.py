"""What every Jupyter server of the runtime does, however it was started."""

from kaos_hub.util import variables
from kaos_hub.workload.notebook import user_side

c = get_config()  # noqa: F821
# The server's environment has nothing of the image's; kernels of any kind and terminals get it.
environ = user_side.configure()
c.MultiKernelManager.kernel_manager_class = user_side.KERNEL_MANAGER
c.ServerApp.kernel_spec_manager_class = "kaos_hub.workload.notebook.kernelspecs.ImageKernelSpecs"
# Not a login shell: /etc/profile would throw the image's PATH away.
c.ServerApp.terminado_settings = {"shell_command": variables.shell(environ)}
# The runtime is read-only, and its updates are not the user's concern.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
