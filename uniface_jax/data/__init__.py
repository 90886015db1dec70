"""From photographs and downloaded data sets to batches: sources, alignment, TFRecord, input."""
