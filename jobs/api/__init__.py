"""The HTTP API: jobs, results and models over HTTP, for whoever holds a key."""
