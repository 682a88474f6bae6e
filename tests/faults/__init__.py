"""Faults that the server must survive: kills, full disks, damaged pages, clocks that jump.

Each test runs against a server in a process of its own, and says which code it protects: without
that code it fails. `make faults` runs all of them in full size, `make test` in a small one.
"""
