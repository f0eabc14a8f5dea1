"""Who waits for messages, when the service is asked for them, and for which orders.

Nothing here spends money, and nothing here knows the purchases (`_purchases`).
"""
