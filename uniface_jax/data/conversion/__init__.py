"""From any source to a TFRecord data set: job, shards, workers, finish, verify, statistics."""
