"""The law of Matrix: pure functions without Flask, SQL, clock, network or randomness.

Everything here follows from the specification alone, and takes all it needs as arguments.
"""
