"""`homebody doctor`: check the server from inside, and as clients and other servers see it.

    findings = runner.run(config)       # in a process of its own: it opens sockets and waits

Each check is a function that yields `Finding`s; `runner.CHECKS` lists them. They run side by side,
each in a thread, and all together take less than 30 seconds. What to say about a finding is in
`advice.py`, and docs/doctor.md explains each.
"""
