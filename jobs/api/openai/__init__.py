"""The OpenAI-compatible API, under `/v1`: files, batches, chat, completions, embeddings, and `/v1/nlp/{task}`.

Written against what the official Python SDK (3.57) sends and reads.
"""
