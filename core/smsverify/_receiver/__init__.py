"""The parts of the receiver of callbacks (`smsverify.callback`): requests, bodies, connections, limits.

Nothing here decides what is believed; that is `_messages.inbox`.
"""
