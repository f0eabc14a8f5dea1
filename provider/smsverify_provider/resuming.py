"""When a deferred task may be resumed."""

# A worker's supervisor notices only every five seconds that its task has deferred. If the task is resumed
# before that, the scheduler takes the old run's late end for the failure of the new one, and the event is
# lost. So no event with a code comes earlier than this many seconds after the deferral.
RESUME_GAP = 8.0
