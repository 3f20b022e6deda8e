"""The daemon: chooses the parts, starts the doors, and stops in order."""
