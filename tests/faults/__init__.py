"""What must not harm: kills, full disks, damaged pages, clocks that jump.

Each test is against a server in a process of its own, and says which lines of app/ it protects:
without them it fails. `make faults` runs them all in full size, `make test` a small one.
"""
