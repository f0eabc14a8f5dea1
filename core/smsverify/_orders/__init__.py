"""An order after its purchase: its record, its status, who has it, and how it is cancelled.

Nothing here spends money, and nothing here waits for a code.
"""
