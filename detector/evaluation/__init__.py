"""How good the detector is, beside what else there is, on data whose truth it never sees."""
