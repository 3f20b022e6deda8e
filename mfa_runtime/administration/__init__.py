"""What an administrator (or a person, enrolling) may change, one file a subject, each change audited in its own transaction.

Every function takes an open writing connection, so that callers join several into one transaction, and an :class:`~.act.Act`,
which says who acts, when, and with which keys and randomness.
"""
