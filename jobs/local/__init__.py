"""Everything on one machine: the embedded broker, the supervised worker, and the lock that says whose turn it is."""
