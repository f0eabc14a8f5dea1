"""The database: its tables, transactions, time and numbers, for SQLite and PostgreSQL alike.

Nothing here knows what a row means; only here is SQL of one dialect written.
"""
