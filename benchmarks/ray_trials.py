"""Run a program many times with Ray Tune, and say how long that took. For a Python that has Ray.

Usage: ray_trials.py PROGRAM TRIALS SLOTS [--reuse]
"""

import json
import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Ray is started before the clock is, which is to its advantage."""
    import ray
    from ray import tune

    program, trials, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    class Trial(tune.Trainable):
        def setup(self, config):
            pass

        def step(self):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([program, folder], check=True)
            return {"done": True}

        def reset_config(self, new_config):
            return True

        def save_checkpoint(self, folder):
            return None

    ray.init(num_cpus=slots, include_dashboard=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(Trial, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(reuse_actors="--reuse" in sys.argv),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    )
    begin = time.perf_counter()
    results = tuner.fit()
    taken = time.perf_counter() - begin
    assert len(results) == trials and not results.errors
    print(json.dumps({"seconds": taken}))


if __name__ == "__main__":
    main()
