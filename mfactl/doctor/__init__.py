"""``mfactl doctor``: the mistakes that administrators make, each with its cure. One file a place to look at."""
