"""The process that this code runs in: its clock, its threads, forks, signals, and whose run it is a part of.

Nothing here knows the service, the store or an order; everything above may use it.
"""
