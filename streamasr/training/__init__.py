"""From a manifest to a checkpoint, in torch (extra `train`)."""
