"""An order after its purchase: what is on record of it, its status, and how it is cancelled.

Nothing here spends money, and nothing here waits for a code.
"""
