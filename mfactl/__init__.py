"""The command line of mfad: one file a subject. Heavy imports (the store, cryptography) stand inside the commands that need
them, so that ``mfactl --help`` and shell completion answer at once."""
