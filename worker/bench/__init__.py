"""`python -m worker.bench`: measures a model in every engine and precision there is here, on given texts."""
