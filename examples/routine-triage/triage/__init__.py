"""What is new in a repository, read and summed up. Standard library only."""
