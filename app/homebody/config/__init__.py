"""The settings: where they come from, what they may be, what they default to."""
