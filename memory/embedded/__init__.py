"""A small server over Qdrant Edge that speaks a strict subset of Qdrant's REST API: the default when there is no Qdrant.

Edge lets one process open a collection, so one process owns it and everybody else speaks HTTP, as to a real server.
"""
