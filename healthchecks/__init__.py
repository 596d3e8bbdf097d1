"""Health checks that run ON a node: they look, judge, and say what they found as JSON lines.

Standard library, and nvidia-ml-py where it is installed; nothing of Holdfast is imported, so this
folder can be copied to any Linux machine and run there (`python -m healthchecks --help`). What
crosses to the controller is the wire form of `healthchecks.findings`, read in
`orchestrator.observers`. A check never repairs anything.
"""
