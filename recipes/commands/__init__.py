"""A grammar of coffee orders: what a closed list of phrases is worth, and what it lets pass that is none."""
