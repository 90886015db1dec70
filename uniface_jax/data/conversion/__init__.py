"""From any source to a TFRecord data set: plan, shards, workers, finish, verify, statistics."""
