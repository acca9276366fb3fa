"""`moorage replay RESPONSE`: an ended turn run again offline, its agent answered from the turn's journal alone.

matching   which recorded call a request is, and the first difference
door       what the agent's clients speak to
running    the agent's program, asked once
command    the command line
"""
