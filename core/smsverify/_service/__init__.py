"""The REST API as it is: requests, answers, endpoints, the rate limit, and the catalogue with its prices.

Nothing here knows of purchases or waits. No other folder sends a request.
"""
