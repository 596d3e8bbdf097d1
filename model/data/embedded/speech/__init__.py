"""Recorded numbers; CC-BY-SA-3.0 and CC-BY-3.0, see LICENSE.txt."""
