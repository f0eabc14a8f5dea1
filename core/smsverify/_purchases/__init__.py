"""Money: what was paid and may have been, what is refunded, renewed and reconciled.

Every paid call begins here. Nothing here knows who waits (`_waiting`).
"""
