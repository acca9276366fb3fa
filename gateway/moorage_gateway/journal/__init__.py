"""What leaves a sandbox and cannot be undone, made once and remembered (turns.md §6).

kinds        what a kind of call must say of itself: a new one needs nothing else of this folder
answers      an answer as the journal holds it
seeing       what traces and counters are told of it
flights      a call being made: what came of it so far, and who follows it
journaling   what becomes of a call: made, met again, held, turned away, refused
making       calls being made here: their leases, their ends, what happens when somebody dies
handing      calls that an attempt makes by itself, and reports
recording    answers into the journal
carrying     completed steps of a try that failed, given on to the next one
found        what asking finds instead of a call to make
refusals     what is said where a call is not made
exporting    a turn's journal as who develops its agent reads it
spilling     answers too large for Redis
"""
