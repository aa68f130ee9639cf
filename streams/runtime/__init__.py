"""The worker: the only part that knows Faust. It feeds folds with chunks of the log and keeps their state exactly."""
