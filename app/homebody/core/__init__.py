"""What the server does: functions over (tx, values); the only place with SQL."""
