"""The law: what a plan grants, what one event does to one counter, which period holds an instant.

Everything here is pure: no I/O, no clock, no await. `now` is always an argument.
"""
