"""Agents that run by themselves (design.md §8): which run is due, its turn, what followed, who is told.

state       what is kept of a routine between two looks
slots       which due times passed, and which of them are run (pure)
deciding    spec, state, now and how the run's turn stands → next state, what is done, when to look again (pure)
running     a run's turn: accepted, looked at, cancelled
history     runs that ended, in the object store
alerting    what people are told, and how it gets there
scheduling  the loop
"""
