"""What /sync carries, and how it waits."""
