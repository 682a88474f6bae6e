"""Clients that must not harm: slow ones, ones that don't read, ones that vanish, huge values.

Each test runs against a server in a process of its own, and names the code it protects in a comment
`Protects:`; without that code it fails. The sizes marked `big` are for `make faults`.
"""
