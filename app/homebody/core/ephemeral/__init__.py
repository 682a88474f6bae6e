"""What is not part of the timeline: typing, presence, receipts."""
