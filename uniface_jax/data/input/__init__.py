"""From a source to batches: order, decoding, augmentation."""
