"""A bundle learns from somebody's own recordings, and what that is worth."""
