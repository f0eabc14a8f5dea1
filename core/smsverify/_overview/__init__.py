"""The account as the records show it, section by section, for `SmsVerifyHook.overview`.

Nothing here asks the service, changes a row or reads a code or the text of an SMS.
"""
