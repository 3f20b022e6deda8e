"""The HTTPS side: what agents join, ask, sync from and report to."""
