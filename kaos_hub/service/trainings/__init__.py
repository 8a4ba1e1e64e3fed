"""Trainings: a request becomes trials, and these leave models.

A request makes a training of an owner's inputs (:mod:`.requests`); its driver
(:mod:`.execution.driver`) has the data fetched, the environment built, and workers run that lease
its trials (:mod:`.execution.leases`).
"""
