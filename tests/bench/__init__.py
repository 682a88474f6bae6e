"""How the server's times and its database grow with history: `make bench`.

A database is filled through the doors of app/core/ (so its events are real: signed, counted,
indexed), and copied at each step on the way: with 1, 10 and 100 percent of its history. Then one
real server runs on each of the copies, all at once, and each thing is measured on all of them in
turn, round after round: what disturbs the machine disturbs all steps alike. The table shows the
lower quartile of the times.

Rooms and members are there from the first step on; what grows is what is said, and who comes and
goes. So no row of the table may grow by more than the logarithm that trees on a disk have.

    make bench                                      500,000 events: minutes, and 2 GB of disk
    make bench BENCH=--small                        in CI
    make bench BENCH="--rooms 300 --events 90000 --members 900 --steps 5,100 --json"

`make traffic` is another one: what an hour of use does to the memory of a server; see traffic.py.
"""
