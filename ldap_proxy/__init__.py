"""The LDAP door: a bind proxy that wants a code, and is the directory in everything else."""
