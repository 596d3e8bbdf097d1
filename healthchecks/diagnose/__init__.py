"""From the text of a failure to its cause: kind, family, is the node at fault, does a restart help.

`diagnose` reads a stream once, in memory that does not grow with it. `sieve` finds the few lines
that a rule could be about, `rulebook` holds the rules (data, in `rules/`), `places` reads who is
named, and `cause` chooses: the first cause, not the loudest line. Standard library only; with
`ahocorasick_rs` installed the sieve is several times faster and says the same.
"""

from __future__ import annotations

from healthchecks.diagnose.cause import Diagnosis
from healthchecks.diagnose.reading import diagnose, diagnose_text

__all__ = ["Diagnosis", "diagnose", "diagnose_text"]
