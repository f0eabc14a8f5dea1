"""SMS that have come, by a status or by a callback, and which of them a wait is for.

Nothing here asks the service.
"""
