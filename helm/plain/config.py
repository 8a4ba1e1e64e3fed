# Read last, by Hub and service: whatever a jupyterhub_config.py may say.

# c.KaosService.limits = {"default": {"notebooks": 5, "cpu": 4, "memory": "8Gi", "gpu": 0}}
# c.KubeSpawner.storage_class = "standard"  # of notebooks' homes, if not the default class
# c.KubernetesEngine.registry_mirrors = {"docker.io": "mirror.example.org"}
