"""What reading a code needs to know of words, shapes and sentences (`smsverify.otp`).

Nothing here decides which candidate is the code.
"""
