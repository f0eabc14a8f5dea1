"""Loads what tasks of smsverify use, before Airflow forks their processes."""

import requests

import smsverify_provider.hooks.smsverify
import smsverify_provider.operators.smsverify
import smsverify_provider.triggers.smsverify
