"""The execution of trainings: the driver, the leases of trials, the workers that run them."""
