"""The protocol rules of Matrix: pure functions without Flask, SQL, clock, network or randomness.

Everything here follows from the specification and takes what it needs as arguments.
"""
