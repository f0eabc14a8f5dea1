"""When a deferred task may be resumed."""

# A worker's supervisor notices only every five seconds that its task has deferred. If the task is resumed
# before that, the scheduler takes the old run's late end for the failure of the new one, and the event is
# lost. So no event comes earlier than this many seconds after the deferral.
RESUME_GAP = 8.0
# Seconds before its turn at which a task comes back: about as long as Airflow takes for that.
LEAD = 3.0
