"""The event stream and initial sync of the API of 2014."""
