"""What reading a code needs to know of words and shapes (`smsverify.otp`).

Nothing here decides which candidate is the code.
"""
