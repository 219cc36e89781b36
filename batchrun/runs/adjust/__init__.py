"""New caps and limits for a run that is going on: a request in the run's folder, an answer in the journal."""
