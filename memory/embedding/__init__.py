"""Embedders: what turns texts into vectors. None is needed; with one, paraphrases are found as well."""
