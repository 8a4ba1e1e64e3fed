"""The spawner for Kubernetes, on top of KubeSpawner."""
