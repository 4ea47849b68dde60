"""What every service must agree on: names, events, aggregates, and the log they meet in.

A module belongs here only if a service written in another language would have to know what it
says to take part.
"""
