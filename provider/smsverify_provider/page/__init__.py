"""The page Browse → SmsVerify in Airflow's UI: what each connection's records show, read only.

Airflow's API server alone imports this.
"""
