"""The Apache Airflow provider of smsverify: connection type, operators, sensor, trigger and macros."""
