"""The default when there is no Qdrant: a small server over Qdrant Edge with a strict subset of Qdrant's REST API.

Edge lets one process open a collection, so one process owns it and everybody else speaks HTTP, as to a real server.
"""
