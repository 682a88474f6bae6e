"""Clients that must not harm: slow ones, deaf ones, ones that vanish, ones that exaggerate.

Each test is against a server in a process of its own, and names what it protects in a comment
`Protects:`; without that it fails. The sizes marked `big` are for `make faults`.
"""
