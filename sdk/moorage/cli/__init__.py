"""The command line `moorage`: one file a command, over the client of the SDK. Heavy imports stay inside commands."""
