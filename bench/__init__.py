"""Measurements of the whole platform against the plainest thing that does the same. See README.md beside this file."""
