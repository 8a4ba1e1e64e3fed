"""A worker of trainings: it takes trials and runs them."""
