"""Tests of the LDAP door."""
