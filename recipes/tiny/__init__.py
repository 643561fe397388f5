"""A sibling of the bundled model for the smallest boards: fewer than a million parameters."""
