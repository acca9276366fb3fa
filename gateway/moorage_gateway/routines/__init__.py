"""Agents that run by themselves (design.md §8): which run is due, its turn, what followed, who is told.

state       what is kept of a routine between two looks
slots       which due times passed, and which of them are run (pure)
deciding    spec, state, now and how the run's turn stands → next state, what is done, when to look again (pure)
running     a run's turn: accepted, looked at, cancelled
invoking    a run's invocation: the same; `sending` asks the agent, `invocations` is what is kept
choosing    the one or the other, as the manifest says
history     runs that ended, in the object store
alerting    what people are told, and how it gets there
scheduling  the loop
"""
