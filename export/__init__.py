"""Programs that turn a checkpoint into a bundle; run as modules from the root of a checkout."""
