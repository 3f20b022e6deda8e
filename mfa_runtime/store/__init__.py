"""The store: users, credentials, one-time codes, throttle, keys and the audit chain, on SQLite or PostgreSQL."""
