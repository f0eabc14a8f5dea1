"""What callers write: names, countries, phone numbers, patterns, templates and store URLs, read in one way.

Nothing here knows the service, the store or an order; everything above may use it.
"""
