"""What this server does together with others: keys, incoming and outgoing events, joins, devices."""
