"""Files of other products, read row by row: one file a format, each ``bytes -> rows``, pure and streaming.

Whatever the bytes are, a parser yields rows, notes and problems and raises nothing. Who the users are and what is stored is
:mod:`mfa_runtime.administration.importing`'s business.
"""
