"""Small programs that measure Textmill; each prints a table for people and one JSON line for machines."""
