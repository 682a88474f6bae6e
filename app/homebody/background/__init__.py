"""What the server does without being asked: greenlets that empty the outbox."""
