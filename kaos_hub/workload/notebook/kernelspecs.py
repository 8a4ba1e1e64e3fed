"""Names the default kernel after what it really is."""

import os

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from kaos_hub.util import variables
from kaos_hub.workload.notebook import kernels


class ImageKernelSpecs(KernelSpecManager):
    """The stock manager, but the default kernel's name says where it is not the image's Python."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        spec = super().get_kernel_spec(kernel_name)
        if kernel_name == kernels.NAME and spec.display_name == kernels.TITLE:
            spec.display_name = kernels.choose(variables.users(os.environ)).title
        return spec
