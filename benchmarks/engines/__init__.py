"""Textmill's engines beside what people would use instead, on the same inputs, in turns, with equal outputs checked."""
