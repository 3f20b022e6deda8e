"""A host that asks an authority, and decides from its own store while there is none.

Room rule: everything that only an agent does. The doors, the gate and the ledger are those of every host; what they need to
know of an authority stands behind :class:`mfa_runtime.counsel.Counsel`.
"""
