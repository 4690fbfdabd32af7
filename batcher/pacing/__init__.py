"""When, how often and how much: deciders that are given facts, time and chance, and do nothing themselves."""
