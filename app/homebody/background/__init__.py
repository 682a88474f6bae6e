"""Background work: greenlets that deliver the rows of the outbox."""
