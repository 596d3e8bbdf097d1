"""The command line: singular nouns, then verbs."""
