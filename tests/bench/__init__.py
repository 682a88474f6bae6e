"""Measure how the server's times and its database grow with history: `make bench`.

A database is filled through the functions of core/ (so its events are real: signed, counted,
indexed), and copied at each step: with 1, 10 and 100 percent of its history. Then a real server
runs on each of the copies, all at the same time, and each measure is taken on all of them in turn,
round after round, so that other load affects all steps alike. The table shows the lower quartile
of the times.

Rooms and members exist from the first step on; messages and membership changes are what grows. So
no row of the table may grow by more than the logarithm that B-trees have.

    make bench                                      500,000 events: minutes, and 2 GB of disk
    make bench BENCH=--small                        in CI
    make bench BENCH="--rooms 300 --events 90000 --members 900 --steps 5,100 --json"

`make traffic` measures the memory of a server during an hour of use; see traffic.py.
"""
