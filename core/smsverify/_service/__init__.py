"""The REST API as it is: requests, answers, endpoints, the rate limit, and the catalogue with its prices.

Nothing here knows who has bought or waits; no other folder sends a request.
"""
