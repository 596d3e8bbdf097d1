"""Telling people: one thread per incident in Slack, and always a line in the log.

Nothing here decides what is worth telling: incidents are opened and closed by decisions of the
core, recorded in the ledger, and told from there. What was told already is remembered there too.
"""
