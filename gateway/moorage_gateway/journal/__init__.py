"""What leaves a sandbox and cannot be undone, made once and remembered (turns.md §6).

kinds        what a kind of call must say of itself: a new one needs nothing else of this folder
answers      an answer as the journal holds it
flights      a call being made: what came of it so far, and who follows it
journaling   started → made → completed; replay; leases; what happens when somebody dies
handing      calls that an attempt makes by itself, and reports
found        what asking finds instead of a call to make
spilling     answers too large for Redis
"""
