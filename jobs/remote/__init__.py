"""Clients over HTTP: the verbs of the direct client against a server somewhere else."""
