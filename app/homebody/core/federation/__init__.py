"""What this server does together with others: keys, events in and out, joins, devices."""
