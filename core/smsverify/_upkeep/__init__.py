"""Keeping a store small: what is over and old goes.

Nothing here asks the service, and nothing removes a record of money or one that something unfinished needs.
"""
